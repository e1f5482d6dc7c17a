export * from '../../lab/postgres-server.ts'; // moves
