// The workload of workload.py for servers on Node: the same commands, the same events, the same pace.
'use strict';
const readline = require('readline');

const PAYLOAD = {
  title: 'Build finished',
  text: 'Pipeline 4711 for main passed all of its 214 checks',
  link: 'https://example.test/p/4711',
  tags: ['ci', 'build'],
  count: 17,
  pad: 'x'.repeat(34),
};
const seconds = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const breathe = () => new Promise((resolve) => setImmediate(resolve));

function envelope(user, seq) {
  return {
    id: `${user}-${String(seq).padStart(8, '0')}`,
    type: 'build.finished',
    seq,
    user,
    ts: Number(process.hrtime.bigint() / 1000n),
    payload: PAYLOAD,
  };
}

class Connection {
  constructor(workload, user, link) {
    this.workload = workload;
    this.user = user;
    this.link = link;
    if (!workload.seqs.has(user)) workload.seqs.set(user, 0);
    this.base = workload.seqs.get(user);
    this.sent = this.acked = 0;
    this.limit = Infinity;
    this.wake = null;
    workload.connections.set(user, this);
  }

  gone() {
    if (this.workload.connections.get(this.user) === this) this.workload.connections.delete(this.user);
  }

  ackUpto(seq) {
    this.acked = seq + 1 - this.base;
    if (this.wake && this.sent - this.acked <= this.limit) {
      const wake = this.wake;
      this.wake = null;
      wake();
    }
  }

  ackOne() {
    this.ackUpto(this.acked + this.base);
  }
}

// publish(user, event) and broadcast(event) send; acks: whether clients confirm what they get.
class Workload {
  constructor({publish, broadcast, acks = true}) {
    Object.assign(this, {publish, broadcast, acks});
    this.connections = new Map();
    this.seqs = new Map();
  }

  next(user) {
    const seq = this.seqs.get(user);
    this.seqs.set(user, seq + 1);
    const connection = this.connections.get(user);
    if (connection) connection.sent++;
    return envelope(user, seq);
  }

  async stream({rate, seconds: length}) {
    const users = [...this.connections.keys()];
    const total = Math.floor(rate * length * users.length);
    const began = seconds();
    let done = 0;
    while (done < total) {
      const due = Math.min(total, Math.floor((seconds() - began) * rate * users.length));
      for (; done < due; done++) {
        const user = users[done % users.length];
        this.publish(user, this.next(user));
      }
      await sleep(5);
    }
    return total;
  }

  async burst({events, window}) {
    const users = [...this.connections.keys()];
    await Promise.all(users.map(async (user) => {
      const connection = this.connections.get(user);
      connection.limit = window >> 1;
      for (let k = 0; k < events; k++) {
        if (this.acks) {
          if (connection.sent - connection.acked >= window) await new Promise((resolve) => { connection.wake = resolve; });
        } else if (k % 100 === 99) await breathe();
        this.publish(user, this.next(user));
      }
    }));
    return events * users.length;
  }

  async fanout({events}) {
    for (let k = 0; k < events; k++) {
      for (const [user, connection] of this.connections) {
        this.seqs.set(user, this.seqs.get(user) + 1);
        connection.sent++;
      }
      this.broadcast(envelope('all', k));
      await breathe();
    }
    return events * this.connections.size;
  }

  async offline({events}) {
    for (let k = 0; k < events; k++) for (const user of this.seqs.keys()) this.publish(user, this.next(user));
    return events * this.seqs.size;
  }

  async settled() {
    const end = seconds() + 60;
    while (this.acks && seconds() < end) {
      if ([...this.connections.values()].every((c) => c.acked >= c.sent)) break;
      await sleep(20);
    }
    return [...this.connections.values()].reduce((sum, c) => sum + c.acked, 0);
  }

  serve() {
    console.log('READY');
    readline.createInterface({input: process.stdin}).on('line', async (line) => {
      const {cmd, ...args} = JSON.parse(line);
      let answer;
      if (cmd === 'connections') answer = {connections: this.connections.size};
      else answer = {sent: await this[cmd](args), acked: cmd === 'offline' ? null : await this.settled()};
      console.log(JSON.stringify(answer));
    }).on('close', () => process.exit(0));
  }
}

module.exports = {Workload, Connection};
