import http2 from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Issued } from '../../lab/certificates.ts';

/** TLS in front of a Temporal server that speaks none, as Temporal Cloud has it: by client certificate or API key. */
export interface Gateway {
  address: string;
  close(): void;
}

export interface GatewayOptions {
  /** host:port of the server behind. */
  upstream: string;
  identity: Issued;
  /** PEM: whoever comes must show a certificate of it. */
  clientAuthority?: string;
  apiKey?: string;
}

/** gRPC's status code for a key that is none. */
const UNAUTHENTICATED = '16';

export async function startGateway({ upstream, identity, clientAuthority, apiKey }: GatewayOptions): Promise<Gateway> {
  const behind = http2.connect(`http://${upstream}`);
  const server = http2.createSecureServer({
    key: identity.key,
    cert: identity.certificate,
    ...(clientAuthority === undefined ? {} : { ca: clientAuthority, requestCert: true, rejectUnauthorized: true }),
  });
  const sockets = new Set<TLSSocket>();
  server.on('secureConnection', (socket: TLSSocket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    if (apiKey !== undefined && headers.authorization !== `Bearer ${apiKey}`) {
      const refusal = { 'grpc-status': UNAUTHENTICATED, 'grpc-message': 'Request unauthorized.' };
      stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...refusal }, { endStream: true });
      return;
    }
    forward(stream, headers, behind);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      behind.destroy();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A gRPC call is a stream with trailers behind its body, or with headers only. */
function forward(
  stream: http2.ServerHttp2Stream,
  headers: http2.IncomingHttpHeaders,
  behind: http2.ClientHttp2Session,
): void {
  const call = behind.request(Object.fromEntries(Object.entries(headers).filter(([name]) => name !== ':scheme')));
  let trailers: http2.IncomingHttpHeaders = {};
  call.on('error', () => stream.destroy());
  call.on('trailers', (found: http2.IncomingHttpHeaders) => (trailers = found));
  call.on('response', (response, flags) => {
    const isWhole = (flags & http2.constants.NGHTTP2_FLAG_END_STREAM) !== 0;
    stream.respond(response, isWhole ? { endStream: true } : { waitForTrailers: true });
  });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.on('close', () => call.close());
  stream.pipe(call);
  call.pipe(stream);
}
