import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { ClusterProgress, ClusterReport } from '../src/domain/progress.ts';

const run = promisify(execFile);

/** The Temporal CLI, as an operator uses it. Each command is shown as it could be typed. */
export class TemporalCli {
  readonly #path: string;
  readonly #address: string;
  readonly #show: (line: string) => void;

  constructor(path: string, address: string, show: (line: string) => void) {
    this.#path = path;
    this.#address = address;
    this.#show = show;
  }

  async start(workflowId: string, input: object): Promise<void> {
    await this.#told([
      'workflow',
      'start',
      '--task-queue',
      'pgtransit',
      '--type',
      'migrateCluster',
      '--workflow-id',
      workflowId,
      '--input',
      JSON.stringify(input),
    ]);
  }

  async signalStop(workflowId: string, reason: string): Promise<void> {
    await this.#told([
      'workflow',
      'signal',
      '-w',
      workflowId,
      '--name',
      'stopReplication',
      '--input',
      JSON.stringify({ reason }),
    ]);
  }

  /** Null while no worker has taken the workflow up yet. */
  async progress(workflowId: string): Promise<ClusterProgress | null> {
    const answer = parseAnswer(
      await this.#quiet(['workflow', 'query', '-w', workflowId, '--type', 'progress', '-o', 'json']),
    ) as { queryResult?: ClusterProgress[] };
    return answer.queryResult?.[0] ?? null;
  }

  /** Waits for the end. The report, also when it comes in the details of a failure. */
  async result(workflowId: string): Promise<{ report: ClusterReport | null; failure: string | null }> {
    const answer = parseAnswer(await this.#quiet(['workflow', 'result', '-w', workflowId, '-o', 'json'])) as {
      status: string;
      result?: ClusterReport;
      closeEvent?: { workflowExecutionFailedEventAttributes?: { failure?: { message?: string } } };
    };
    if (answer.status === 'COMPLETED' && answer.result !== undefined) return { report: answer.result, failure: null };
    return {
      report: null,
      failure: answer.closeEvent?.workflowExecutionFailedEventAttributes?.failure?.message ?? answer.status,
    };
  }

  async #told(args: string[]): Promise<void> {
    this.#show(`$ temporal ${args.map(shellWord).join(' ')}`);
    await this.#quiet(args);
  }

  async #quiet(args: string[]): Promise<string> {
    try {
      const { stdout } = await run(this.#path, [...args, '--address', this.#address], { maxBuffer: 64 * 1024 * 1024 });
      return stdout;
    } catch (error) {
      // `workflow result` of a failed workflow prints its answer and exits with 1.
      const { stdout, stderr } = error as { stdout?: string; stderr?: string };
      if (stdout !== undefined && stdout.trim().startsWith('{')) return stdout;
      throw new Error(`The Temporal CLI said: ${(stderr ?? String(error)).trim()}`, { cause: error });
    }
  }
}

/** The CLI prints an empty list as null; we have no null where a list may be, but for the fields named here. */
const parseAnswer = (text: string): unknown =>
  JSON.parse(text, (key, value: unknown) =>
    value === null && ['databases', 'warnings', 'roles', 'queryResult'].includes(key) ? [] : value,
  );

const shellWord = (word: string): string => (/^[\w./:=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
