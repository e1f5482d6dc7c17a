/**
 * Every duration, size and count that somebody chose, with the reason. Milliseconds and bytes unless said otherwise.
 * Workflow code imports this file too, so it holds plain values only. What decides a timer in a workflow is part of
 * its history: a changed value is safe, a changed *order* of timers is not.
 */
export const LIMITS = {
  /** Validation gives up on a server after this long: the operator is still looking at the terminal. */
  reachServerMs: 30_000,
  /** Half of it must be enough to notice a dead worker; a heartbeat comes from a timer, so it is never late by work. */
  heartbeatTimeoutMs: 30_000,
  /** How often an activity's timer heartbeats. Pending activities show these details live. */
  heartbeatEveryMs: 3_000,
  /** How often a wait looks again (lag, drain, a locked unit, the holder). One cheap query each. */
  pollMs: 500,
  /** The first and the longest pause between two measurements of a database; it doubles in between. */
  measureFirstMs: 5_000,
  measureMostMs: 300_000,
  /** Times the number of databases: how often a streaming child tells its parent, whose history 50,000 events bound. */
  reportToParentMs: 600_000,

  /** The holder ends by itself when no keep session was there for this long: the longest outage without a worker. */
  snapshotLeaseSeconds: 12 * 3600,
  /** … and in any case after this long, because a snapshot keeps vacuum from cleaning up on the source. */
  snapshotMostSeconds: 7 * 24 * 3600,
  /** Bounds the wait of slot creation for older transactions; nothing else bounds it. Then it is tried again. */
  slotLockTimeoutSeconds: 30,

  /** Tables below this are copied many in one transaction and one round trip: 11.3 s became 4.9 s on 2,000 tables. */
  tinyTableBytes: 1024 * 1024,
  tinyTablesPerBatch: 100,
  /** … but not more than this in one transaction, so that a killed batch costs little. */
  tinyBatchBytes: 16 * 1024 * 1024,
  /** Tables above this are split by ctid range, so that lanes share them and a retry repeats a part only. */
  splitTableBytes: 1024 * 1024 * 1024,
  chunkBytes: 512 * 1024 * 1024,
  /** Bytes that the relay may hold for a target that is slower than its source, before it pauses the source. */
  relayBufferBytes: 4 * 1024 * 1024,

  /** Entries of the schema in one transaction; a failing batch is run again entry by entry to name the one. */
  schemaBatchEntries: 200,

  /** Consecutive samples that must be within the lag limit before the gate opens, and how long one may take. */
  gateSamples: 3,
  gateSampleMs: 1_000,

  /** Objects named in one error sentence; the rest is counted. */
  namesInMessage: 10,
} as const;
