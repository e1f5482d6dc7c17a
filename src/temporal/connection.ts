import { loadClientConnectConfig } from '@temporalio/envconfig';
import type { NativeConnectionOptions } from '@temporalio/worker';
import { NativeConnection } from '@temporalio/worker';
import { LIMITS } from '../domain/limits.ts';

/** Where the Temporal CLI looks too when nothing is set. */
const DEFAULT_ADDRESS = '127.0.0.1:7233';
const DEFAULT_NAMESPACE = 'default';

export interface TemporalTarget {
  address: string;
  namespace: string;
  /** Fits `NativeConnection.connect` (workers) and `Connection.connect` (clients) alike. */
  connectionOptions: NativeConnectionOptions & { address: string };
}

/**
 * Reads `TEMPORAL_*` variables and the profiles of `temporal.toml`, by the rules of the Temporal CLI.
 * @throws Error with one sentence when the configuration cannot be read.
 */
export function readTemporalTarget(env: NodeJS.ProcessEnv): TemporalTarget {
  const configuration = readConfiguration(env);
  return targetAt(configuration.address ?? DEFAULT_ADDRESS, configuration);
}

/** The same; null where no address is configured. */
export function configuredTarget(env: NodeJS.ProcessEnv): TemporalTarget | null {
  const configuration = readConfiguration(env);
  return configuration.address === undefined ? null : targetAt(configuration.address, configuration);
}

interface Configuration {
  address: string | undefined;
  namespace: string | undefined;
  connectionOptions: NativeConnectionOptions;
}

const targetAt = (address: string, { namespace, connectionOptions }: Configuration): TemporalTarget => ({
  address,
  namespace: namespace ?? DEFAULT_NAMESPACE,
  connectionOptions: { ...connectionOptions, address },
});

/**
 * An empty variable is none: it is what compose files and scripts make of one that is not set. The address or namespace
 * of a profile does not count then either, as for the Temporal CLI.
 */
function readConfiguration(env: NodeJS.ProcessEnv): Configuration {
  const { TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace } = env;
  try {
    const read = loadClientConnectConfig({ overrideEnvVars: withoutEmpty(env) });
    return {
      address: address === '' ? undefined : read.connectionOptions.address,
      namespace: namespace === '' ? undefined : read.namespace,
      connectionOptions: read.connectionOptions,
    };
  } catch (error) {
    throw new Error(
      `The Temporal configuration cannot be read: ${messageOf(error)} (TEMPORAL_* variables, temporal.toml).`,
      {
        cause: error,
      },
    );
  }
}

/** @throws Error with one sentence (address, what to check), after twice `temporalConnectMs` at the latest. */
export async function connectToTemporal(target: TemporalTarget): Promise<NativeConnection> {
  const connection = await connect(target);
  try {
    await requireNamespace(connection, target);
    return connection;
  } catch (error) {
    await connection.close();
    throw error;
  }
}

async function connect({ address, connectionOptions }: TemporalTarget): Promise<NativeConnection> {
  const connecting = NativeConnection.connect(connectionOptions);
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    const reason = new Error(`it did not answer within ${LIMITS.temporalConnectMs / 1000} s`);
    timer = setTimeout(() => reject(reason), LIMITS.temporalConnectMs);
  });
  try {
    return await Promise.race([connecting, timeout]);
  } catch (error) {
    // A connection that comes up after all, later, is of no use to anybody.
    connecting.then((late) => late.close()).catch(() => undefined);
    throw unreachable(address, error);
  } finally {
    clearTimeout(timer);
  }
}

/** Before there is a connection, the code stands in the message of the native client, as a name or in words. */
const unreachable = (address: string, cause: unknown): Error =>
  /Unauthenticated|PermissionDenied|valid authentication credentials|not have permission/.test(messageOf(cause))
    ? refused(address, cause)
    : unanswered(address, cause);

const refused = (address: string, cause: unknown): Error =>
  new Error(
    `Temporal at ${address} refuses access: ${shortReason(cause)}. Check TEMPORAL_API_KEY or the TLS certificate.`,
    { cause },
  );

const unanswered = (address: string, cause: unknown): Error =>
  new Error(
    `No connection to Temporal at ${address}: ${shortReason(cause)}. Check that the server runs there, and ` +
      'TEMPORAL_ADDRESS, TEMPORAL_TLS and TEMPORAL_API_KEY (or temporal.toml).',
    { cause },
  );

async function requireNamespace(connection: NativeConnection, { address, namespace }: TemporalTarget): Promise<void> {
  const describe = () => connection.workflowService.describeNamespace({ namespace });
  try {
    await connection.withDeadline(Date.now() + LIMITS.temporalConnectMs, describe);
  } catch (error) {
    const code = grpcCode(error);
    if (code === GRPC.notFound)
      throw new Error(
        `Temporal at ${address} has no namespace "${namespace}". Set TEMPORAL_NAMESPACE, or create it with ` +
          `\`temporal operator namespace create --namespace ${namespace}\`.`,
        { cause: error },
      );
    if (code === GRPC.unauthenticated || code === GRPC.permissionDenied)
      throw new Error(
        `Temporal at ${address} refuses access to namespace "${namespace}": ${shortReason(error)}. ` +
          'Check TEMPORAL_API_KEY or the TLS certificate.',
        { cause: error },
      );
    throw unreachable(address, error);
  }
}

/** The status codes of gRPC that we tell apart. */
export const GRPC = {
  invalidArgument: 3,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  unimplemented: 12,
  unauthenticated: 16,
} as const;

export function grpcCode(error: unknown): number | undefined {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'number' ? code : undefined;
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The innermost reason; the layers around it are Rust's debug notation. */
export function shortReason(error: unknown): string {
  const message = messageOf(error);
  if (message.includes('InvalidContentType')) return 'it does not speak TLS';
  const reason =
    /(?:message|error): "(?<reason>[^"]+)"/.exec(message)?.groups?.['reason'] ?? message.split('\n')[0] ?? message;
  return reason.replace(/\.$/, '');
}

const withoutEmpty = (env: NodeJS.ProcessEnv): Record<string, string> =>
  Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => Boolean(entry[1])));
