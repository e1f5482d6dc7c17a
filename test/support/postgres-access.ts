export * from '../../lab/postgres-access.ts'; // moves
