export * from '../../lab/ports.ts'; // moves
