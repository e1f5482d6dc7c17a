export * from '../../lab/processes.ts'; // moves
