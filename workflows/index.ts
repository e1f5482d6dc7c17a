// Every function exported here becomes a workflow type.
export { migrateCluster } from './migrate-cluster.ts';
export { migrateDatabase } from './migrate-database.ts';
export { validateCluster } from './validate-cluster.ts';
