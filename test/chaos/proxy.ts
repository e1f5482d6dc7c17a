import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import net from 'node:net';

/** Stands before a server on this machine, and can do what networks do. */
export interface Proxy {
  port: number;
  /** Every connection is reset, on both sides. */
  drop(): void;
  /** Until it is told otherwise, new connections are reset. */
  refuse(refusing: boolean): void;
  /** Until it is told otherwise, nothing comes through, and nobody hears of it. */
  stall(stalling: boolean): void;
  close(): Promise<void>;
}

export async function startProxy(serverPort: number): Promise<Proxy> {
  const sockets = new Set<Socket>();
  let refusing = false;
  let stalling = false;
  const join = (from: Socket, to: Socket): void => {
    sockets.add(from);
    if (stalling) from.pause();
    from.on('data', (data) => {
      if (!to.write(data)) from.pause();
    });
    to.on('drain', () => {
      if (!stalling) from.resume();
    });
    from.on('error', () => undefined);
    from.on('end', () => to.end());
    from.on('close', () => {
      sockets.delete(from);
      to.destroy();
    });
  };
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    if (refusing) {
      client.on('error', () => undefined);
      client.resetAndDestroy();
      return;
    }
    const upstream = net.connect({ port: serverPort, host: '127.0.0.1', allowHalfOpen: true });
    join(client, upstream);
    join(upstream, client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    drop: () => {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    refuse: (now) => {
      refusing = now;
    },
    stall: (now) => {
      stalling = now;
      for (const socket of sockets)
        if (now) socket.pause();
        else socket.resume();
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
