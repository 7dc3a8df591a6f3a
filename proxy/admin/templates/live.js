// Adds to the live page what comes, as the server made its first rows (proxy/admin/live_page.py).
'use strict';
(() => {
  const part = (id) => document.getElementById(id);
  const view = part('live'), lines = part('lines'), state = part('state'), pause = part('pause');
  const most = Number(view.dataset.most);
  const told = ['timestamp', 'level', 'event', 'tenant', 'caller', 'request_id', 'worker'];
  let waiting = [], paused = false, leftOut = 0, source = null;

  const say = (text) => { state.textContent = text; };

  // What turns the order of letters, or is not seen, shows as its number (proxy/loglines.py, printable).
  const hex = (each, length) => each.codePointAt(0).toString(16).padStart(length, '0');
  const short = { '\t': '\\t', '\n': '\\n', '\r': '\\r', ' ': ' ' };
  const escaped = (each) => short[each] ?? (each.codePointAt(0) < 0x100 ? `\\x${hex(each, 2)}`
    : each.codePointAt(0) < 0x10000 ? `\\u${hex(each, 4)}` : `\\U${hex(each, 8)}`);
  const harmless = (value) => value.replace(/[\p{C}\p{Z}]/gu, escaped);

  const text = (value) => {
    if (value === null || value === undefined) return '';
    if (Array.isArray(value) && value.every((each) => typeof each === 'string')) return harmless(value.join(' '));
    return harmless(typeof value === 'string' ? value : JSON.stringify(value));
  };

  const details = (line) => Object.entries(line)
    .filter(([name, value]) => !told.includes(name) && value !== null && value !== false
      && value !== '' && !(Array.isArray(value) && !value.length))
    .map(([name, value]) => `${name} ${text(value)}`).join(', ');

  const tone = (line) => {
    const status = text(line.status);
    if (status.startsWith('5') || line.level === 'error') return 'bad';
    return status.startsWith('4') || line.level === 'warning' ? 'warn' : '';
  };

  // Below ten the tenths tell the proxy's own time.
  const took = (ms) => `${ms >= 10 ? Math.round(ms) : (Math.round(ms * 10) / 10).toFixed(1)} ms`;

  const cells = (line) => {
    const isRequest = line.event === 'request.finished';
    return {
      time: text(line.timestamp).slice(11, 19),
      what: isRequest ? `${text(line.method)} ${text(line.path)}` : text(line.event),
      tenant: text(line.tenant) || '—',
      result: isRequest ? `${text(line.status)} ${text(line.outcome)}${line.retried === true ? ', sent twice' : ''}` : details(line),
      took: isRequest ? took(line.duration_ms) : '',
      caller: text(line.caller),
      request_id: text(line.request_id),
    };
  };

  const show = (line) => {
    const row = part('line').content.cloneNode(true);
    for (const [name, value] of Object.entries(cells(line))) {
      row.querySelector(`[data-field=${name}]`).textContent = value;
    }
    if (tone(line)) row.querySelector('[data-field=result]').classList.add(tone(line));
    lines.prepend(row);
    while (lines.rows.length > most) lines.lastElementChild.remove();
    part('none').hidden = true;
  };

  const count = (number, one) => `${number} ${one}${number === 1 ? '' : 's'}`;

  const leave = (number) => {
    leftOut += number;
    part('left-out').textContent = `${count(leftOut, 'line')} of the log left out: more came than is shown here.`;
    part('left-out').hidden = false;
  };

  const come = (event) => {
    const line = JSON.parse(event.data);
    if (!paused) { show(line); return; }
    waiting.push(line);
    if (waiting.length > most) { waiting.shift(); leave(1); }
    say(`Paused; ${count(waiting.length, 'new line')}.`);
  };

  const stop = (why) => {
    source.close();
    pause.hidden = true;
    say(`${why} `);
    const again = document.createElement('a');
    again.href = '';
    again.textContent = 'Load the page again';
    state.append(again);
  };

  // The browser does not tell why it was refused, and tries no more; the answer says it.
  const askWhy = async () => {
    const asking = new AbortController();
    try {
      const answer = await fetch(view.dataset.stream, { signal: asking.signal });
      stop(answer.ok ? 'The connection broke.'
        : answer.status === 401 ? 'You are logged out.' : (await answer.json()).detail || 'It was refused.');
    } catch {
      stop('The proxy cannot be reached.');
    }
    asking.abort();
  };

  const begin = () => {
    source = new EventSource(view.dataset.stream);
    source.addEventListener('begin', () => { if (!paused) say('New lines come by themselves.'); });
    source.addEventListener('message', come);
    source.addEventListener('left_out', (event) => leave(JSON.parse(event.data).lines));
    source.addEventListener('end', (event) => stop(JSON.parse(event.data).why));
    source.addEventListener('error', () => {
      if (source.readyState === EventSource.CLOSED) askWhy();
      else say('The connection broke. Trying again …');
    });
  };

  pause.addEventListener('click', () => {
    paused = !paused;
    pause.textContent = paused ? 'Go on' : 'Pause';
    if (!paused) { waiting.forEach(show); waiting = []; }
    say(paused ? 'Paused.' : 'New lines come by themselves.');
  });
  pause.hidden = false;
  say('Connecting …');
  begin();
})();
