import type { Check } from './check.ts';
import * as connections from './connections.ts';
import * as disk from './disk.ts';
import * as extensions from './extensions.ts';
import * as fence from './fence.ts';
import * as filters from './filters.ts';
import * as ranges from './key-ranges.ts';
import * as largeObjects from './large-objects.ts';
import * as leftovers from './leftovers.ts';
import * as locale from './locale.ts';
import * as objects from './objects.ts';
import * as privileges from './privileges.ts';
import * as reach from './reach.ts';
import * as reverse from './reverse.ts';
import * as identity from './replica-identity.ts';
import * as reproducible from './reproducible.ts';
import * as removed from './removed.ts';
import * as roles from './roles.ts';
import * as sessions from './sessions.ts';
import * as slots from './slot-limits.ts';
import * as settings from './source-settings.ts';
import * as subscribing from './subscribing.ts';
import * as reserved from './superuser-objects.ts';
import * as target from './target.ts';
import * as timeouts from './timeouts.ts';

const cluster = { level: 'cluster' } as const;
const database = { level: 'database' } as const;
/** With `method: auto`, what it sees makes the method `dump`. */
const decides = { decides: true } as const;
/** Run once more right before anything is changed. */
const cheap = { cheap: true } as const;
const onSource = { server: 'source' } as const;
const onTarget = { server: 'target' } as const;
const error = { severity: 'error' } as const;
const warning = { severity: 'warning' } as const;
const info = { severity: 'info' } as const;
const always = { needs: 'any' } as const;
const copy = { needs: 'copy' } as const;
const replication = { needs: 'replication' } as const;

/** Every check, in the order in which findings are shown. To add one: a function in its family's file, and an entry. */
// prettier-ignore
export const CHECKS: readonly Check[] = [
  { ...cluster, code: 'same-server', ...error, ...onTarget, ...always, ...cheap, title: 'looking for our source session on the target', run: connections.sameServer },
  { ...cluster, code: 'same-system-identifier', ...warning, ...onTarget, ...always, title: 'comparing the system identifiers', run: connections.sameSystemIdentifier },
  { ...cluster, code: 'pooler', ...error, ...onSource, ...always, title: 'looking for a connection pooler', run: connections.sourcePooler },
  { ...cluster, code: 'pooler', ...error, ...onTarget, ...always, title: 'looking for a connection pooler', run: connections.targetPooler },
  { ...cluster, code: 'several-servers', ...error, ...onSource, ...always, title: 'comparing several connections', run: connections.sourceServers },
  { ...cluster, code: 'several-servers', ...error, ...onTarget, ...always, title: 'comparing several connections', run: connections.targetServers },
  { ...cluster, code: 'source-version', ...error, ...onSource, ...always, title: 'reading the version', run: connections.sourceVersion },
  { ...cluster, code: 'target-version', ...error, ...onTarget, ...always, title: 'reading the version', run: connections.targetTooOld },
  { ...cluster, code: 'target-older', ...error, ...onTarget, ...always, title: 'comparing the versions', run: connections.targetVersion },
  { ...cluster, code: 'program-missing', ...error, ...onTarget, ...always, title: 'looking for the client programs', run: connections.programs },
  { ...cluster, code: 'target-in-recovery', ...error, ...onTarget, ...always, ...cheap, title: 'asking whether the server is a standby', run: connections.targetInRecovery },
  { ...cluster, code: 'target-read-only', ...warning, ...onTarget, ...always, ...cheap, title: 'reading default_transaction_read_only', run: connections.targetReadOnly },
  { ...cluster, code: 'size-limit', ...error, ...onSource, ...copy, title: 'adding up the sizes', run: target.sizeLimit },
  { ...cluster, code: 'create-database', ...error, ...onTarget, ...always, title: 'reading what our role may do', run: privileges.createDatabases },
  { ...cluster, code: 'create-role', ...warning, ...onTarget, ...always, title: 'reading what our role may do', run: privileges.createRoles },
  { ...cluster, code: 'all-roles-setting', ...warning, ...onSource, ...always, title: 'reading settings for all roles', run: roles.settingsOfAllRoles },
  { ...cluster, code: 'role-label', ...warning, ...onSource, ...always, title: 'reading security labels of roles', run: roles.roleLabels },
  { ...cluster, code: 'role-attribute', ...warning, ...onTarget, ...always, title: 'comparing the attributes of the roles', run: roles.roleAttributes },
  { ...cluster, code: 'reserved-superuser', ...error, ...onTarget, ...always, title: 'looking for superusers that the target forbids', run: roles.gatekeeper },
  { ...cluster, code: 'standby-conflict', ...warning, ...onSource, ...copy, title: 'reading what ends queries on a standby', run: connections.standbyConflicts },
  { ...cluster, code: 'free-connections', ...warning, ...onSource, ...copy, title: 'counting free connections', run: sessions.sourceConnections },
  { ...cluster, code: 'free-connections', ...warning, ...onTarget, ...copy, title: 'counting free connections', run: sessions.targetConnections },
  { ...cluster, code: 'target-disk', ...warning, ...onTarget, ...copy, title: 'reading the free space of its disk', run: disk.targetDisk },
  { ...cluster, code: 'target-tuning', ...info, ...onTarget, ...copy, title: 'reading how it is tuned', run: disk.targetTuning },
  { ...cluster, code: 'prepared-transaction', ...error, ...onSource, ...copy, ...cheap, title: 'looking for prepared transactions', run: settings.preparedTransactions },

  { ...cluster, code: 'source-in-recovery', ...error, ...onSource, ...replication, ...decides, ...cheap, title: 'asking whether the server is a standby', run: connections.sourceInRecovery },
  { ...cluster, code: 'wal-level', ...error, ...onSource, ...replication, ...decides, ...cheap, title: 'reading wal_level', run: settings.walLevel },
  { ...cluster, code: 'replication-attribute', ...error, ...onSource, ...replication, ...decides, title: 'reading what our role may do', run: privileges.replicationAttribute },
  { ...cluster, code: 'create-subscription', ...error, ...onTarget, ...replication, ...decides, title: 'reading what our role may do', run: subscribing.createSubscription },
  { ...cluster, code: 'subscription-password', ...error, ...onTarget, ...replication, ...decides, title: 'reading what our role may do', run: subscribing.subscriptionPassword },
  { ...cluster, code: 'replication-slots', ...error, ...onSource, ...replication, ...cheap, title: 'counting free replication slots', run: settings.freeSlots },
  { ...cluster, code: 'wal-senders', ...error, ...onSource, ...replication, ...cheap, title: 'counting free WAL senders', run: settings.freeWalSenders },
  { ...cluster, code: 'apply-workers', ...error, ...onTarget, ...replication, title: 'counting free apply workers', run: target.applyWorkers },
  { ...cluster, code: 'long-transaction', ...warning, ...onSource, ...replication, title: 'looking for long transactions', run: settings.longTransactions },
  { ...cluster, code: 'slot-limit', ...warning, ...onSource, ...replication, title: 'reading what limits a slot', run: slots.slotLimits },
  { ...cluster, code: 'source-disk', ...warning, ...onSource, ...replication, title: 'estimating the WAL of the copy', run: disk.sourceDisk },
  { ...cluster, code: 'sender-timeout', ...warning, ...onSource, ...replication, title: 'reading wal_sender_timeout', run: settings.walSenderTimeout },
  { ...cluster, code: 'outdated-minor', ...warning, ...onSource, ...replication, title: 'reading the version', run: connections.outdatedMinor },

  { ...database, code: 'leftovers', ...error, ...onSource, ...always, ...cheap, title: 'looking for what an earlier migration left', run: leftovers.sourceLeftovers },
  { ...database, code: 'leftovers', ...error, ...onTarget, ...always, ...cheap, title: 'looking for what an earlier migration left', run: leftovers.targetLeftovers },
  { ...database, code: 'target-database-missing', ...error, ...onTarget, ...always, ...cheap, title: 'looking for the database', run: target.targetMissing },
  { ...database, code: 'target-not-empty', ...error, ...onTarget, ...always, ...cheap, title: 'looking for objects in the database', run: target.targetNotEmpty },
  { ...database, code: 'target-differs', ...warning, ...onTarget, ...always, title: 'comparing encoding and locale', run: target.targetDifferences },
  { ...database, code: 'target-subscription', ...error, ...onTarget, ...always, title: 'looking for other subscriptions', run: target.targetSubscriptions },
  { ...database, code: 'target-event-trigger', ...warning, ...onTarget, ...always, title: 'looking for event triggers', run: target.targetEventTriggers },
  { ...database, code: 'target-create', ...error, ...onTarget, ...always, title: 'reading privileges', run: privileges.createInTarget },
  { ...database, code: 'filter-matches-nothing', ...error, ...onSource, ...always, title: 'looking for the tables of the filter', run: filters.tableFilters },
  { ...database, code: 'filter-partitioned', ...info, ...onSource, ...always, title: 'looking for partitioned tables of the filter', run: filters.partitionedFilters },

  { ...database, code: 'source-for-target', ...error, ...onTarget, ...replication, ...cheap, title: 'trying whether the target reaches the source', run: reach.sourceForTarget },
  { ...database, code: 'timeout-setting', ...info, ...onSource, ...always, title: 'reading what ends sessions', run: timeouts.sourceTimeouts },
  { ...database, code: 'timeout-setting', ...info, ...onTarget, ...always, title: 'reading what ends sessions', run: timeouts.targetTimeouts },

  { ...database, code: 'schema-usage', ...error, ...onSource, ...always, title: 'reading privileges', run: privileges.schemaUsage },
  { ...database, code: 'table-select', ...error, ...onSource, ...always, title: 'reading privileges', run: privileges.tableSelect },
  { ...database, code: 'sequence-select', ...error, ...onSource, ...copy, title: 'reading privileges', run: privileges.sequenceSelect },
  { ...database, code: 'large-object-select', ...error, ...onSource, ...copy, title: 'reading privileges', run: largeObjects.largeObjectSelect },
  { ...database, code: 'row-security', ...error, ...onSource, ...copy, title: 'asking whether policies hide rows', run: privileges.rowSecurity },
  { ...database, code: 'table-owner', ...error, ...onSource, ...replication, ...decides, title: 'reading owners', run: privileges.tableOwner },
  { ...database, code: 'create-publication', ...error, ...onSource, ...replication, ...decides, title: 'reading privileges', run: privileges.createPublication },
  { ...database, code: 'aiven-extras', ...error, ...onTarget, ...replication, ...decides, title: 'looking for aiven_extras', run: subscribing.extrasInDatabase },
  { ...database, code: 'forced-row-security', ...error, ...onTarget, ...replication, ...decides, title: 'looking for forced row security', run: subscribing.forcedRowSecurity },

  { ...database, code: 'fence', ...error, ...onSource, ...replication, title: 'reading privileges', run: fence.fenceRights },
  { ...database, code: 'fence-superuser', ...warning, ...onSource, ...replication, title: 'looking for sessions of superusers', run: fence.superuserSessions },
  { ...database, code: 'reverse', ...error, ...onSource, ...replication, title: 'trying whether the source can follow the target', run: reverse.reverse },

  { ...database, code: 'replica-identity', ...error, ...onSource, ...replication, ...decides, ...cheap, title: 'looking for tables without replica identity', run: identity.replicaIdentity },
  { ...database, code: 'replica-identity-full', ...error, ...onSource, ...replication, ...decides, ...cheap, title: 'looking for types without equality', run: identity.fullIdentityTypes },
  { ...database, code: 'replica-identity-generated', ...error, ...onSource, ...replication, ...decides, ...cheap, title: 'looking for generated columns in replica identities', run: identity.generatedIdentity },
  { ...database, code: 'hash-partition', ...error, ...onSource, ...replication, ...decides, title: 'looking for partitions by a hash of OIDs', run: identity.routedByParent },
  { ...database, code: 'key-ranges', ...warning, ...onSource, ...replication, title: 'asking which tables can be cut into ranges of their key', run: ranges.keyRanges },

  { ...database, code: 'unsupported-extension', ...error, ...onSource, ...always, title: 'reading extensions', run: objects.unsupportedExtensions },
  { ...database, code: 'extension', ...error, ...onTarget, ...always, title: 'comparing extensions', run: extensions.extensions },
  { ...database, code: 'extension-rows', ...error, ...onTarget, ...copy, ...cheap, title: 'looking for rows in configuration tables of extensions', run: extensions.configurationRows },
  { ...database, code: 'superuser-object', ...error, ...onTarget, ...always, title: 'looking for what only superusers can make', run: reserved.superuserObjects },
  { ...database, code: 'language', ...error, ...onTarget, ...always, title: 'comparing languages', run: extensions.languages },
  { ...database, code: 'locale', ...error, ...onTarget, ...always, title: 'trying the locales', run: locale.locales },
  { ...database, code: 'collation-version', ...warning, ...onTarget, ...copy, title: 'comparing the versions of the collations', run: locale.collationVersions },
  { ...database, code: 'object-owner', ...warning, ...onTarget, ...always, title: 'asking who may own objects', run: roles.owners },
  { ...database, code: 'tablespace', ...warning, ...onTarget, ...always, title: 'comparing tablespaces', run: target.missingTablespaces },
  { ...database, code: 'wraparound', ...warning, ...onSource, ...copy, title: 'reading the age of transaction ids', run: settings.wraparound },
  { ...database, code: 'connection-limit', ...error, ...onSource, ...copy, title: 'reading connection limits', run: sessions.sourceConnectionLimit },
  { ...database, code: 'connection-limit', ...error, ...onTarget, ...copy, title: 'reading connection limits', run: sessions.targetConnectionLimit },
  { ...database, code: 'lock-table', ...warning, ...onSource, ...always, title: 'counting tables', run: settings.lockTable },

  { ...database, code: 'removed-feature', ...error, ...onSource, ...always, title: 'looking for what later versions do not have', run: removed.removedFeatures },
  { ...database, code: 'table-with-oids', ...warning, ...onSource, ...copy, title: 'looking for tables with hidden oids', run: removed.tablesWithOids },
  { ...database, code: 'truncate-not-replicated', ...warning, ...onSource, ...replication, title: 'reading what publications can', run: removed.truncateNotReplicated },

  { ...database, code: 'check-not-satisfied', ...error, ...onSource, ...copy, title: 'computing CHECK constraints', run: reproducible.checkConstraints },
  { ...database, code: 'generated-differs', ...error, ...onSource, ...copy, title: 'computing generated columns', run: reproducible.generatedColumns },
  { ...database, code: 'index-not-rebuildable', ...error, ...onSource, ...copy, title: 'computing expression indexes', run: reproducible.expressionIndexes },
  { ...database, code: 'foreign-key-disabled', ...warning, ...onSource, ...copy, title: 'looking for disabled foreign keys', run: reproducible.disabledForeignKeys },
  { ...database, code: 'foreign-key-excluded', ...warning, ...onSource, ...copy, title: 'looking for foreign keys to excluded tables', run: filters.keysToExcluded },
  { ...database, code: 'matview-not-refreshable', ...error, ...onSource, ...copy, title: 'computing materialized views', run: reproducible.materializedViews },

  { ...database, code: 'invalid-index', ...warning, ...onSource, ...always, title: 'looking for invalid indexes', run: objects.invalidIndexes },
  { ...database, code: 'firing-trigger', ...warning, ...onSource, ...replication, title: 'looking for triggers that fire on the target', run: objects.firingTriggers },
  { ...database, code: 'catalog-object', ...warning, ...onSource, ...always, title: 'looking for objects in pg_catalog', run: objects.catalogObjects },
  { ...database, code: 'subscription', ...warning, ...onSource, ...always, title: 'looking for subscriptions', run: objects.subscriptions },
  { ...database, code: 'security-label', ...warning, ...onSource, ...always, title: 'reading security labels', run: objects.securityLabels },
  { ...database, code: 'library-function', ...warning, ...onSource, ...always, title: 'looking for functions in C', run: objects.libraryFunctions },
  { ...database, code: 'unlogged-table', ...warning, ...onSource, ...copy, title: 'looking for unlogged tables', run: objects.unloggedTables },
  { ...database, code: 'large-object', ...info, ...onSource, ...copy, title: 'counting large objects', run: largeObjects.largeObjects },
  { ...database, code: 'foreign-table', ...info, ...onSource, ...copy, title: 'looking for foreign tables', run: objects.foreignTables },
  { ...database, code: 'event-trigger', ...info, ...onSource, ...always, title: 'looking for event triggers', run: objects.eventTriggers },
  { ...database, code: 'all-tables-publication', ...warning, ...onSource, ...always, title: 'looking for publications of all tables', run: objects.allTablesPublications },
  { ...database, code: 'temporary-table', ...info, ...onSource, ...copy, title: 'counting temporary tables', run: objects.temporaryTables },
  { ...database, code: 'name-case', ...info, ...onSource, ...always, title: 'looking for names that differ by case', run: objects.namesByCase },
];
