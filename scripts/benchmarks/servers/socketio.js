// Socket.IO over WebSocket alone, with connection state recovery. Arguments: PORT ack|plain
'use strict';
const {createServer} = require('http');
const {Server} = require('socket.io');
const {Workload, Connection} = require('../workload.js');

const withAck = process.argv[3] === 'ack';
const http = createServer();
const server = new Server(http, {transports: ['websocket'], connectionStateRecovery: {}});
const workload = new Workload({
  acks: withAck,
  publish(user, event) {
    if (!withAck) {
      server.to(user).emit('ev', event);
      return;
    }
    const connection = workload.connections.get(user);
    if (connection) connection.link.timeout(30000).emit('ev', event, (error) => { if (!error) connection.ackOne(); });
  },
  broadcast(event) {
    if (!withAck) {
      server.emit('ev', event);
      return;
    }
    server.timeout(30000).emit('ev', event, (error) => {
      if (!error) for (const connection of workload.connections.values()) connection.ackOne();
    });
  },
});
server.on('connection', (socket) => {
  const user = socket.handshake.query.user;
  socket.join(user);
  const connection = new Connection(workload, user, socket);
  socket.on('disconnect', () => connection.gone());
});
http.listen({port: Number(process.argv[2]), host: '127.0.0.1', backlog: 2048}, () => workload.serve());
