"use strict";
// What a page of another site can make a browser send. Each attack is given a URL at the proxy, and gives what
// it could read of the answer as text, or nothing. How an attack ends is no proof of anything: the test looks
// at the proxy and at Pleo.

const BODY = JSON.stringify({name: "written by a page"});

const text = async (response) => (await (await response).text()) || null;

// An element in the page; ends when the browser says that it has loaded or failed.
const element = (name, attributes, inside = "", read = () => null) => new Promise((done) => {
  const made = document.createElement(name);
  made.innerHTML = inside;
  for (const event of ["load", "loadeddata", "error"]) {
    made.addEventListener(event, () => done(read(made)));
  }
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  document.body.append(made);
});

const frameText = (frame) => {
  try {
    return frame.contentDocument.documentElement.textContent || null;
  } catch {
    return null;
  }
};
const frame = (attributes) => element("iframe", attributes, "", frameText);

let frames = 0;
const form = (attributes, field, value) => new Promise((done) => {
  const target = document.createElement("iframe");
  target.name = `form-${++frames}`;
  document.body.append(target);
  target.addEventListener("load", () => done(frameText(target)));
  const made = document.createElement("form");
  for (const [key, content] of Object.entries({...attributes, target: target.name})) {
    made.setAttribute(key, content);
  }
  const input = document.createElement("input");
  input.name = field;
  input.value = value;
  made.append(input);
  document.body.append(made);
  made.submit();
});

// A document of its own that does something with the URL; what it learns it tells the page.
const tells = (source) => `<script>
  addEventListener("error", () => parent.postMessage({said: null, to: URL_}, "*"), true);
  (${source})(URL_).then((said) => said, () => null).then((said) => parent.postMessage({said, to: URL_}, "*"));
</` + `script>`;
const documentOf = (url, source) => tells(source).replaceAll("URL_", JSON.stringify(url).replaceAll("<", "\\u003c"));
const told = (url) => new Promise((done) => {
  addEventListener("message", (event) => event.data.to === url && done(event.data.said));
});
const within = (url, attributes) => {
  const answer = told(url);
  frame(attributes);
  return answer;
};

const READS = `(url) => fetch(url).then((answer) => answer.text())`;
const WRITES = `(url) => fetch(url, {method: "POST", mode: "no-cors", body: '${BODY}'}).then(() => null)`;
const SHOWS = `(url) => new Promise((done) => { const i = new Image(); i.onload = i.onerror = () => done(null); i.src = url; })`;

const worker = (url, source) => new Promise((done) => {
  const code = `${source}; (${READS})(${JSON.stringify(url)}).then(postMessage, () => postMessage(null));`;
  const made = new Worker(URL.createObjectURL(new Blob([code])));
  made.onmessage = (event) => done(event.data);
  made.onerror = () => done(null);
});

const link = (url, attributes) => element("link", {href: url, ...attributes});
const bounce = (url, status = 302) => `/bounce/${status}?to=${encodeURIComponent(url)}`;
const popup = (url, features) => {
  const opened = window.open(url, "_blank", features);
  return new Promise((done) => setTimeout(() => {
    try {
      done(opened && opened.document.URL !== "about:blank" ? opened.document.documentElement.textContent : null);
    } catch {
      done(null);
    }
  }, 300));
};
const anchor = (attributes) => {
  const made = document.createElement("a");
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  document.body.append(made);
  made.click();
};

const ATTACKS = {
  // Reading by script.
  "fetch": (url) => text(fetch(url)),
  "fetch-no-cors": (url) => text(fetch(url, {mode: "no-cors"})),
  "fetch-no-referrer": (url) => text(fetch(url, {mode: "no-cors", referrerPolicy: "no-referrer"})),
  "fetch-with-credentials": (url) => text(fetch(url, {credentials: "include"})),
  "fetch-other-language": (url) => text(fetch(url, {
    mode: "no-cors", referrerPolicy: "no-referrer", headers: {"Accept-Language": "", "Accept": "application/json"},
  })),
  "fetch-custom-header": (url) => text(fetch(url, {headers: {"X-Pleo-Tenant": "acme"}})),
  "fetch-redirected": (url) => text(fetch(bounce(url))),
  "fetch-no-cors-redirected": (url) => text(fetch(bounce(url), {mode: "no-cors", referrerPolicy: "no-referrer"})),
  "xhr": (url) => new Promise((done) => {
    const request = new XMLHttpRequest();
    request.onloadend = () => done(request.responseText || null);
    request.open("GET", url);
    request.send();
  }),
  "xhr-with-credentials": (url) => new Promise((done) => {
    const request = new XMLHttpRequest();
    request.withCredentials = true;
    request.onloadend = () => done(request.responseText || null);
    request.open("GET", url);
    request.send();
  }),
  "event-source": (url) => new Promise((done) => {
    const source = new EventSource(url);
    source.onmessage = (event) => done(event.data);
    source.onerror = () => { source.close(); done(null); };
  }),
  "web-socket": (url) => new Promise((done) => {
    const socket = new WebSocket(url.replace("http", "ws"));
    socket.onopen = () => done("open");
    socket.onerror = () => done(null);
  }),
  "worker": (url) => worker(url, ""),
  "worker-import": (url) => worker(url, `importScripts(${JSON.stringify(url)})`),
  "module": (url) => import(url).then((module) => JSON.stringify(Object.keys(module))),

  // Writing by script.
  "post": (url) => text(fetch(url, {method: "POST", body: BODY})),
  "post-no-cors": (url) => text(fetch(url, {method: "POST", mode: "no-cors", body: BODY})),
  "post-no-referrer": (url) => text(fetch(url, {
    method: "POST", mode: "no-cors", referrerPolicy: "no-referrer", body: BODY,
  })),
  "post-json": (url) => text(fetch(url, {method: "POST", body: BODY, headers: {"Content-Type": "application/json"}})),
  "post-keepalive": (url) => text(fetch(url, {method: "POST", mode: "no-cors", keepalive: true, body: BODY})),
  "post-redirected": (url) => text(fetch(bounce(url, 307), {method: "POST", mode: "no-cors", body: BODY})),
  "put": (url) => text(fetch(url, {method: "PUT", body: BODY})),
  "delete": (url) => text(fetch(url, {method: "DELETE"})),
  "xhr-post": (url) => new Promise((done) => {
    const request = new XMLHttpRequest();
    request.onloadend = () => done(request.responseText || null);
    request.open("POST", url);
    request.send(BODY);
  }),
  "beacon": async (url) => { navigator.sendBeacon(url, BODY); },
  "beacon-blob": async (url) => { navigator.sendBeacon(url, new Blob([BODY], {type: "text/plain"})); },
  "hyperlink-ping": async (url) => anchor({href: "#here", ping: url}),
  "policy-report": (url) => frame({src: `/reporting?to=${encodeURIComponent(url)}`}).then(() => null),

  // Forms.
  "form-post": (url) => form({method: "post", action: url}, "name", "written by a page"),
  "form-post-no-referrer": (url) => form({method: "post", action: url, rel: "noreferrer"}, "name", "x"),
  "form-text-plain": (url) => form(
    {method: "post", action: url, enctype: "text/plain"}, '{"name":"written by a page","x":"', '"}',
  ),
  "form-multipart": (url) => form({method: "post", action: url, enctype: "multipart/form-data"}, "name", "x"),
  "form-redirected": (url) => form({method: "post", action: bounce(url, 307)}, "name", "x"),
  "form-get": (url) => form({method: "get", action: url}, "limit", "5"),

  // Elements.
  "image": (url) => element("img", {src: url}, "", (image) => image.naturalWidth ? "an image" : null),
  "image-no-referrer": (url) => element("img", {src: url, referrerpolicy: "no-referrer"}),
  "image-crossorigin": (url) => element("img", {src: url, crossorigin: "use-credentials"}),
  "image-redirected": (url) => element("img", {src: bounce(url), referrerpolicy: "no-referrer"}),
  "script": (url) => element("script", {src: url, referrerpolicy: "no-referrer"}),
  "stylesheet": (url) => link(url, {rel: "stylesheet", referrerpolicy: "no-referrer"}),
  "style-background": async (url) => { document.body.style.backgroundImage = `url(${url})`; },
  "font": (url) => new FontFace("stolen", `url(${url})`).load().then(() => "a font"),
  "frame": (url) => frame({src: url}),
  "frame-no-referrer": (url) => frame({src: url, referrerpolicy: "no-referrer"}),
  "object": (url) => element("object", {data: url}),
  "embed": (url) => element("embed", {src: url}),
  "video": (url) => element("video", {src: url}),
  "audio": (url) => element("audio", {src: url}),
  "preload": (url) => link(url, {rel: "preload", as: "fetch", crossorigin: ""}),
  "module-preload": (url) => link(url, {rel: "modulepreload"}),
  "prerender": async (url) => { link(url, {rel: "prerender", referrerpolicy: "no-referrer"}); },
  "prefetch": (url) => link(url, {rel: "prefetch", referrerpolicy: "no-referrer"}),
  "manifest": async (url) => { document.head.append(Object.assign(document.createElement("link"), {rel: "manifest", href: url})); },
  "icon": async (url) => { document.head.append(Object.assign(document.createElement("link"), {rel: "icon", href: url})); },

  // Documents with an origin of their own.
  "sandboxed-frame": (url) => within(url, {sandbox: "allow-scripts", srcdoc: documentOf(url, READS)}),
  "sandboxed-frame-writes": (url) => within(url, {sandbox: "allow-scripts", srcdoc: documentOf(url, WRITES)}),
  "sandboxed-frame-shows": (url) => within(url, {sandbox: "allow-scripts", srcdoc: documentOf(url, SHOWS)}),
  "data-url": (url) => within(url, {src: "data:text/html," + encodeURIComponent(documentOf(url, READS))}),
  "data-url-writes": (url) => within(url, {src: "data:text/html," + encodeURIComponent(documentOf(url, WRITES))}),
  "data-url-shows": (url) => within(url, {src: "data:text/html," + encodeURIComponent(documentOf(url, SHOWS))}),
  "blob-url": (url) => within(url, {
    src: URL.createObjectURL(new Blob([documentOf(url, READS)], {type: "text/html"})),
  }),
  "blob-url-shows": (url) => within(url, {
    src: URL.createObjectURL(new Blob([documentOf(url, SHOWS)], {type: "text/html"})),
  }),

  // Navigations.
  "meta-refresh": (url) => frame({src: `/refresh?to=${encodeURIComponent(url)}`}).then(() => null),
  "window-open": (url) => popup(url),
  "window-open-no-referrer": (url) => popup(url, "noreferrer"),
  "window-open-redirected": (url) => popup(bounce(url), "noreferrer"),
  "window-open-credentials": (url) => popup(url.replace("//", "//user:password@"), "noreferrer"),
  "link-clicked": async (url) => anchor({href: url, target: "_blank", rel: "noreferrer"}),
  "link-download": async (url) => anchor({href: url, download: "stolen.json", target: "_blank"}),
  "speculation": async (url) => {
    const rules = document.createElement("script");
    rules.type = "speculationrules";
    rules.textContent = JSON.stringify({prefetch: [{source: "list", urls: [url], eagerness: "immediate"}]});
    document.head.append(rules);
  },
};

const LONGEST_MS = 4000;

// All attacks at the proxy at once; gives what each could read.
window.attack = async (base, names = Object.keys(ATTACKS)) => {
  const results = {};
  await Promise.all(names.map(async (name) => {
    const attack = ATTACKS[name];
    const late = new Promise((done) => setTimeout(done, LONGEST_MS, null));
    const url = `${base}/acme/v2/employees/${name}`;
    try {
      results[name] = (await Promise.race([attack(url), late])) || null;
    } catch {
      results[name] = null;
    }
  }));
  document.body.prepend(Object.assign(document.createElement("pre"), {textContent: JSON.stringify(results, null, 1)}));
  return results;
};

// What a page tries when its own name leads to the proxy: all is of one origin then, and every answer readable.
const OWN = {
  "own-fetch": (url) => text(fetch(url)),
  "own-fetch-with-header": (url) => text(fetch(url, {headers: {"X-Pleo-Tenant": "acme"}})),
  "own-post": (url) => text(fetch(url, {method: "POST", body: BODY, headers: {"Content-Type": "application/json"}})),
  "own-put": (url) => text(fetch(url, {method: "PUT", body: BODY})),
  "own-frame": (url) => frame({src: url}),
  "own-form": (url) => form({method: "post", action: url}, "name", "written by a page"),
  "own-worker": (url) => worker(new URL(url, location).href, ""),
};
const SERVICE_WORKER = {
  "own-service-worker": (url) => navigator.serviceWorker.register(url, {scope: url}).then(() => "registered"),
};

window.attackOwn = async () => {
  const results = {};
  const attacks = {...OWN, ...(navigator.serviceWorker ? SERVICE_WORKER : {})};
  for (const [name, attack] of Object.entries(attacks)) {
    results[name] = await attack(`/acme/v2/employees/${name}`).catch(() => null);
  }
  return results;
};
