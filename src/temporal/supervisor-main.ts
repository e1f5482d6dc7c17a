import process from 'node:process';
import { supervise } from './supervisor.ts';

/** `node supervisor-main.js STATE_DIR`, started by local-server.ts. */
const [stateDir] = process.argv.slice(2);
if (stateDir === undefined) throw new Error('The supervisor needs a state directory.');
await supervise(stateDir);
process.exit();
