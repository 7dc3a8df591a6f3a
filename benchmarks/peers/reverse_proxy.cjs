// http-proxy-3 with kept connections and the credential; no log.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");

const [modules, port, target, authority, credential] = process.argv.slice(2);
const { createProxyServer } = require(`${modules}/http-proxy-3`);
const agent = authority
  ? new https.Agent({ keepAlive: true, maxFreeSockets: 512, ca: fs.readFileSync(authority) })
  : new http.Agent({ keepAlive: true, maxFreeSockets: 512 });
const proxy = createProxyServer({ target, agent, headers: { authorization: credential } });
proxy.on("error", (error, request, response) => {
  console.error(String(error));
  if (response.writeHead) response.writeHead(502);
  response.end();
});
http.createServer((request, response) => proxy.web(request, response)).listen(Number(port), "127.0.0.1");
