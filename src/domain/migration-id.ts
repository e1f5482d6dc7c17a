/** FNV-1a, 32 bits (Fowler, Noll, Vo). Names must only differ between migrations; nothing here is a secret. */
function fnv1a(text: string, seed: number): number {
  let hash = seed >>> 0;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return hash;
}

/**
 * The 12 hex digits in every name of one database's migration: the same after a retry, a reset or a continue-as-new of
 * the child, and new for each new migration. Pure, because workflow code has no `node:crypto`.
 */
export function migrationId(workflowId: string, firstRunId: string): string {
  const text = `${firstRunId} ${workflowId}`;
  const high = fnv1a(text, 0x811c9dc5) & 0xffff;
  const low = fnv1a(`${text} `, 0x9747b28c);
  return high.toString(16).padStart(4, '0') + low.toString(16).padStart(8, '0');
}
