export * from '../../lab/tools.ts'; // moves
