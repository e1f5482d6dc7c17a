export * from '../../lab/temporal-server.ts'; // moves
