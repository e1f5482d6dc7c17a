export * from '../../lab/postgres-template.ts'; // moves
