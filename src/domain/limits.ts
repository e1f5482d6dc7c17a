/**
 * Every duration, size and count that somebody chose, with the reason. Milliseconds and bytes unless said otherwise.
 * Workflow code imports this file too, so it holds plain values only. What decides a timer in a workflow is part of
 * its history: a changed value is safe, a changed *order* of timers is not.
 */
export const LIMITS = {
  /** Validation gives up on a server after this long: the operator is still looking at the terminal. */
  reachServerMs: 30_000,
  /** One connection attempt, where connect_timeout says nothing; behind a firewall that drops, nothing else ends it. */
  connectMs: 10_000,
  /** One check of validation; a catalog query that takes longer is waiting for something. It is `unknown` then. */
  checkTimeoutMs: 20_000,
  /** How long the target server may try to reach each host of the source. */
  targetConnectSeconds: 5,
  /** How fast a copy is taken to be when its time is estimated: a slow network. Over loopback it was 90 MB/s. */
  assumedCopyBytesPerSecond: 20 * 1024 * 1024,
  /** Below this nobody needs to be told about disks and checkpoints. */
  diskWorthMentioningBytes: 1024 * 1024 * 1024,
  /** What validation may spend on reading the rows of one database: enough for small tables, no load from big ones. */
  checkRowsMs: 5_000,
  /** Half of it must be enough to notice a dead worker; a heartbeat comes from a timer, so it is never late by work. */
  heartbeatTimeoutMs: 30_000,
  /** How often an activity's timer heartbeats. Pending activities show these details live. */
  heartbeatEveryMs: 3_000,
  /** How often a wait looks again (lag, drain, a locked unit, the holder). One cheap query each. */
  pollMs: 500,
  /** A lock that a step waits for longer than this is somebody else's, who may not end by itself; it is said then. */
  lockWaitWorthMentioningMs: 10_000,
  /** The first and the longest pause between two measurements of a database; it doubles in between. */
  measureFirstMs: 5_000,
  measureMostMs: 300_000,
  /** The first pause between two looks at what a cutover needs; it doubles up to `measureMostMs`. */
  assessFirstMs: 30_000,
  /** … and the longest while retained WAL is past half of what the plan allows. Each costs a dozen events of a history. */
  measureNearLimitMs: 60_000,
  /** Times the number of databases: how often a streaming child tells its parent, whose history 50,000 events bound. */
  reportToParentMs: 600_000,
  /** … and one that copies: often enough for a person who watches the parent, seldom enough for both histories. */
  reportCopyMs: 4_000,

  /** The holder ends by itself when no keep session was there for this long: the longest outage without a worker. */
  snapshotLeaseSeconds: 12 * 3600,
  /** … and in any case after this long, because a snapshot keeps vacuum from cleaning up on the source. */
  snapshotMostSeconds: 7 * 24 * 3600,
  /** How often in a row a snapshot may be lost without a single table finished under it. */
  fruitlessGenerations: 5,
  /** A lane that was just starting is ended when it holds what closes a generation; this is how long it is waited for. */
  closeLockTimeoutMs: 1_000,
  /** How long changing the tables of an older ledger waits for a lane that uses them; then the step is tried again. */
  ledgerLockTimeoutMs: 1_000,
  /** How long foreign keys between tables of several streams may wait for a moment at which their rows fit. */
  foreignKeyPatienceMs: 120_000,
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
  /** Of a table that is copied in ranges of its key: every change of it is compared with the bounds of all. */
  rangesPerTable: 200,
  /** Pages that are read to cut it: 24 MB, from which bounds are a few percent off. */
  rangeSamplePages: 3_000,
  /** Bytes that the relay may hold for a target that is slower than its source, before it pauses the source. */
  relayBufferBytes: 4 * 1024 * 1024,
  /** Below the default deadlock_timeout: where a batch locks many tables, it gives way, and not the application. */
  batchLockTimeoutMs: 500,
  /** Rows that planCopy writes to the ledger in one statement. */
  ledgerRowsPerInsert: 5_000,

  /** For each index build. 64 MB was as fast as 1 GB with 4.4 M rows; below it no parallel helper starts. */
  indexMemory: '64MB',
  /** Helpers of one index build: 20-25 s became 15-18 s on 1 GB with three indexes. */
  indexHelpers: 2,

  /** Large objects in one transaction, and what is read of each at once: together at most 16 MB in memory. */
  largeObjectsPerBatch: 64,
  largeObjectPieceBytes: 256 * 1024,

  /** What is compared at once while it streams: seconds of one core, and few rows to look at more closely. */
  comparedBytes: 64 * 1024 * 1024,
  /** … of a table whose key cannot be cut: more would take too long to be of one moment. */
  comparedWholeBytes: 1024 * 1024 * 1024,
  /** The pause after each part, in times of what it took: a tenth of a core on either side. */
  comparePause: 9,
  /** A part that was equal is compared once more no sooner than this. */
  compareAgainMs: 60 * 60_000,
  /** How often it is asked whether there is something to compare once more. */
  compareIdleMs: 60_000,
  /** Of 65,536 groups of rows, so many that differ are looked at more closely at once: the rest has to wait. */
  comparedBuckets: 2_000,
  /** Rows that change all the time are looked at so often before they are left for later. */
  compareRounds: 6,
  /** After so long a session that does nothing has told the server what it wrote (the server says 10 s). */
  sessionCountsMs: 15_000,
  /** What a rehearsal reckons with where nothing was measured: a modest disk, and one slot and one subscription made. */
  rehearsedBytesPerSecond: 50 * 1024 * 1024,
  armReverseMs: 100,
  /** Sessions on either server that compare rows: two keep both servers busy without starving their other work. */
  verifySessions: 2,

  /** Entries of the schema in one transaction; where one fails, they are run again entry by entry to name it. */
  schemaBatchEntries: 200,
  /** … and in memory. */
  schemaEntriesAtOnce: 1_000,
  /** Sessions that create tables and add foreign keys at the same time, if the plan has as many copy lanes. */
  schemaSessions: 4,
  /** … when so many come one after the other that do not wait for each other, so many of them at a time. */
  schemaEntriesBeside: 40,

  /** Consecutive samples that must be within the lag limit before the gate opens, and how long one may take. */
  gateSamples: 3,
  gateSampleMs: 1_000,

  /** A probe of readiness ends within its minute: each query, and after how long no other condition is looked at. */
  readinessStatementMs: 3_000,
  readinessMs: 35_000,
  /** Between two samples of positions: rates over less are noise, because confirmations come in steps. */
  rateSampleMs: 2_000,
  /** A rehearsal is asked for by somebody who waits for it: gate and drain may each take this long, which a stop may not. */
  rehearseMs: 60_000,
  /** A transaction older than this may be one that nobody will end before the cutover waits for it. */
  longTransactionMs: 60_000,

  /** Little enough to be a second of writes: then "catching up" is "streaming". */
  caughtUpBytes: 16 * 1024 * 1024,
  /** How often the gate is looked at: nobody waits at it, but nothing should be written for long after it opens. */
  gatePollMs: 50,
  /** Behind the fence the application waits: four waits there took 0.2 s longer with 50 ms. */
  drainPollMs: 20,
  /**
   * Between two looks for sessions that began before the fence: a starting one shows up only when it has begun. Writers
   * wait for two of these; what slips through all the same is found after the mark.
   */
  fencePollMs: 25,
  /** Who still connects after this long is not kept out by the fence, and will not be. */
  fenceMs: 5_000,
  /** A failing apply worker is started again every 5 s; after so many failures in one wait a person is asked. */
  applyErrorsToFail: 3,
  /** Before 15 the server counts no apply errors: a worker that was away for four restarts in all is taken for failing. */
  applyIdleMs: 20_000,
  /** How often a replication that streams is looked at: a worker that fails is away for 5 s of each 5, so it is seen. */
  watchEveryMs: 4_000,
  /** Definitions of so many tables are compared at each measurement: 3,000 took a second. Of more only when it matters. */
  tablesComparedOften: 10_000,
  /** A worker that is away is looked after no more often than the server starts it again. */
  tryFailingEveryMs: 5_000,
  /** To find what a failing worker gets next, so much is decoded; a transaction larger than that is not looked into. */
  peekFailingMs: 10_000,
  peekFailingChanges: 10_000,
  peekFailingBytes: 16 * 1024 * 1024,
  /** How long each of its changes may take when it is tried: it must not wait for, or hold, a lock of somebody else. */
  tryChangeMs: 2_000,
  /** How long an apply worker may finish what it has in hand after a disable, e.g. wait for a lock, before it is ended. */
  workerPatienceMs: 5_000,
  /** A statement on a publication locks each table it names, and a server has about 6,400 locks by default. */
  tablesPerPublicationStatement: 500,
  /** Changes that one look into a slot decodes: bounds its time and its temporary files on the source. */
  peekChanges: 1_000_000,

  /** Objects named in one error sentence; the rest is counted. */
  namesInMessage: 10,
  /** Keys of rows that differ, in one sentence. */
  keysInMessage: 20,
  /** … databases with their sizes: as many as a person would go through to leave some out. */
  databasesInMessage: 50,

  /** Warnings that a database's report can hold, and characters of each: 2 MB of payload is Temporal's end. */
  warningsInReport: 200,
  warningCharacters: 1_000,

  /** Our own Temporal server usually starts in 2-4 s; much longer on a machine that does other things. */
  serverStartMs: 60_000,
  /** It ends when nobody used it for this long: the next command of a script need not start it again. */
  serverIdleMs: 3_000,
  serverStopMs: 10_000,
  /** Its log begins anew above this. */
  serverLogBytes: 10 * 1024 * 1024,
  /** How long it keeps finished workflows, and so reports; its own default is one day. */
  retentionDays: 90,
  /** A worker that polls is seen at least every minute; one that died stays listed for five. */
  pollerAliveMs: 75_000,
  /** How often a person at a terminal sees new numbers. */
  followMs: 1_000,
  /** … and how long none may come before that is said: one question may go astray, or a step start a moment later. */
  followPatienceMs: 5_000,
  /** Databases whose pending steps are looked at in one round, the others in the next: one request each. */
  followDatabases: 8,
  /** Times of two machines that stand side by side in a report and in their logs: more than this misleads. */
  clockDifferenceMs: 5_000,
  /** A namespace that forgets sooner has no report of Friday's migration on Monday. */
  retentionWorthHavingDays: 3,
  /** A Temporal server that does not answer for this long is not there: the operator waits at the terminal. */
  temporalConnectMs: 10_000,
  /** Search attributes show up with the next refresh of the server's namespace cache, every 2 to 10 s. */
  searchAttributesMs: 20_000,
  /** How often the log repeats that Temporal cannot be reached. */
  repeatLogMs: 30_000,
  /** How long short activities may go on after a shutdown began, before they are cancelled … */
  shutdownGraceMs: 5_000,
  /** … and all of it together. Container platforms kill after 30 s; what was cut off is tried again elsewhere. */
  shutdownForceMs: 15_000,
  /** A cancellation arrives with the answer to a heartbeat, so this is how late it may be noticed. */
  heartbeatThrottleMs: 5_000,
  /** Steps at once in one worker: a short one is a query or two … */
  shortActivities: 32,
  /**
   * … a lane of a copy holds a session on each side and a relay buffer. How many there are the plans say; a database that
   * streams has one step all the time, which does next to nothing, and must not take the room of those.
   */
  laneActivities: 1_000,
  /** About 1 MB each; a workflow that fell out of the cache replays its history of a few hundred events. */
  cachedWorkflows: 50,
} as const;
