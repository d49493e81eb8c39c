// Nothing but ws. Arguments: PORT
'use strict';
const {WebSocketServer} = require('ws');
const {Workload, Connection} = require('../workload.js');

const workload = new Workload({
  publish(user, event) {
    const connection = workload.connections.get(user);
    if (connection) connection.link.send(JSON.stringify(event));
  },
  broadcast(event) {
    const text = JSON.stringify(event);
    for (const connection of workload.connections.values()) connection.link.send(text);
  },
});
const server = new WebSocketServer({host: '127.0.0.1', port: Number(process.argv[2]), backlog: 2048});
server.on('connection', (link, request) => {
  const connection = new Connection(workload, request.url.split('user=')[1], link);
  link.on('message', (data) => {
    const frame = JSON.parse(data);
    if (frame.t === 'ack') connection.ackUpto(frame.seq);
  });
  link.on('close', () => connection.gone());
  link.on('error', () => {});
});
server.on('listening', () => workload.serve());
