export * from '../../lab/run-program.ts'; // moves
