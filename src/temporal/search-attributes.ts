import { setTimeout as delay } from 'node:timers/promises';
import proto from '@temporalio/proto';
import type { NativeConnection } from '@temporalio/worker';
import { SEARCH_ATTRIBUTE } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';
import { GRPC, grpcCode, shortReason } from './connection.ts';

const { INDEXED_VALUE_TYPE_KEYWORD: KEYWORD } = proto.temporal.api.enums.v1.IndexedValueType;
const NAMES = Object.values(SEARCH_ATTRIBUTE);

export interface SearchAttributesResult {
  /** Whether all four may be written: upserting an unknown one would stop a workflow for ever. */
  registered: boolean;
  /** For the operator: what was done, or what to do. */
  message: string;
}

/**
 * Registers the search attributes that are missing, where the server lets us, and waits until the server shows them.
 * Several workers may do this at once. Without them a migration goes on all the same, so this does not throw.
 */
export async function ensureSearchAttributes(
  connection: NativeConnection,
  namespace: string,
  signal?: AbortSignal,
): Promise<SearchAttributesResult> {
  const giveUpAt = Date.now() + LIMITS.searchAttributesMs;
  let added = false;
  let problem = 'the server does not show them yet';
  for (;;) {
    const missing = await findMissing(connection, namespace, giveUpAt);
    if (typeof missing === 'string') return without(namespace, NAMES, missing);
    if (missing.length === 0) return { registered: true, message: added ? 'registered just now' : 'registered' };
    if (Date.now() >= giveUpAt || signal?.aborted === true) return without(namespace, missing, problem);
    if (!added) {
      const refusal = await add(connection, namespace, missing, giveUpAt);
      if (refusal?.final === true) return without(namespace, missing, refusal.reason);
      added = refusal === null;
      problem = refusal?.reason ?? problem;
    }
    await delay(LIMITS.pollMs);
  }
}

/** The same without registering anything. */
export async function lookForSearchAttributes(
  connection: NativeConnection,
  namespace: string,
): Promise<SearchAttributesResult> {
  const missing = await findMissing(connection, namespace, Date.now() + LIMITS.temporalConnectMs);
  if (typeof missing === 'string') return without(namespace, NAMES, missing);
  if (missing.length === 0) return { registered: true, message: 'registered' };
  return without(namespace, missing, `a worker registers ${missing.join(', ')} at its start if it may`);
}

/** The names that are not there, or why that cannot be known or will not change. */
async function findMissing(
  connection: NativeConnection,
  namespace: string,
  giveUpAt: number,
): Promise<string[] | string> {
  try {
    const list = () => connection.operatorService.listSearchAttributes({ namespace });
    const { customAttributes } = await connection.withDeadline(giveUpAt, list);
    const other = NAMES.find((name) => name in customAttributes && customAttributes[name] !== KEYWORD);
    return other === undefined
      ? NAMES.filter((name) => !(name in customAttributes))
      : `${other} is not of type Keyword`;
  } catch (error) {
    // Temporal Cloud has no operator service. A list filter with an unknown name is refused, and needs only read access.
    const query = NAMES.map((name) => `${name} = ''`).join(' AND ');
    const count = () => connection.workflowService.countWorkflowExecutions({ namespace, query });
    const [known] = await Promise.allSettled([connection.withDeadline(giveUpAt, count)]);
    return known.status === 'fulfilled' ? [] : shortReason(error);
  }
}

/** Null when they were added, also by somebody else. */
async function add(
  connection: NativeConnection,
  namespace: string,
  names: readonly string[],
  giveUpAt: number,
): Promise<{ reason: string; final: boolean } | null> {
  const searchAttributes = Object.fromEntries(names.map((name) => [name, KEYWORD]));
  const request = () => connection.operatorService.addSearchAttributes({ namespace, searchAttributes });
  try {
    await connection.withDeadline(giveUpAt, request);
    return null;
  } catch (error) {
    // Another worker was quicker, perhaps with some of them only: look again.
    const final = FINAL.some((code) => code === grpcCode(error));
    return { reason: shortReason(error), final };
  }
}

/** No right to do it, no operator service, no room for four more of type Keyword. */
const FINAL = [GRPC.permissionDenied, GRPC.unauthenticated, GRPC.unimplemented, GRPC.invalidArgument];

function without(namespace: string, names: readonly string[], reason: string): SearchAttributesResult {
  // A namespace of Temporal Cloud ends in its account, and has a tool of its own.
  const command = /\.[a-z0-9]{5}$/.test(namespace)
    ? `tcld namespace search-attributes add --namespace ${namespace} ${names.map((name) => `--sa ${name}=Keyword`).join(' ')}`
    : `temporal operator search-attribute create --namespace ${namespace} ${names.map((name) => `--name ${name}`).join(' ')} --type Keyword`;
  const advice = `To add them, run this and restart the worker: ${command}`;
  return { registered: false, message: `not registered (${reason}); migrations run without them. ${advice}` };
}
