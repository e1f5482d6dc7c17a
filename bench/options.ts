import { Command, InvalidArgumentError, Option } from 'commander';
import type { DataSetName } from './data.ts';
import { DATA_SETS } from './data.ts';
import { METHODS } from './methods/index.ts';
import type { MethodName } from './methods/index.ts';

export interface BenchOptions {
  sets: DataSetName[];
  methods: MethodName[];
  rounds: number;
  /** 1: the sizes in the README. */
  scale: number;
  /** PostgreSQL majors. */
  source: number;
  target: number;
  json: string;
  markdown: string;
  seed: number;
  /** Lanes of pgtransit; null: as its plan has them by default. */
  copy: number | null;
  index: number | null;
}

/** Reads the command line; a mistake ends the process with a sentence. */
export function readOptions(argv: readonly string[]): BenchOptions {
  const command = new Command('npm run bench --')
    .description('Measures pgtransit beside other tools on this machine, each in turn, on the same data.')
    .addOption(listOption('--sets <names>', 'data sets', Object.keys(DATA_SETS)))
    .addOption(listOption('--methods <names>', 'methods', Object.keys(METHODS)))
    .option('--rounds <n>', 'rounds; the result is the median', whole(1), 3)
    .option('--scale <factor>', 'size of the data, as a factor', positive, 1)
    .option('--source <major>', 'PostgreSQL of the source', whole(14), 17)
    .option('--target <major>', 'PostgreSQL of the target', whole(14), 18)
    .option('--seed <n>', 'what the data is made of: the same number makes the same rows', whole(0), 1)
    .option('--copy <n>', 'copy lanes of pgtransit (default: those of its plan)', whole(1))
    .option('--index <n>', 'index lanes of pgtransit (default: those of its plan)', whole(1))
    .option('--json <file>', 'every single run', 'dist/bench/result.json')
    .option('--markdown <file>', 'the tables', 'dist/bench/result.md')
    .parse([...argv], { from: 'user' });
  return { copy: null, index: null, ...command.opts<Omit<BenchOptions, 'copy' | 'index'>>() };
}

function listOption(flags: string, what: string, known: readonly string[]): Option {
  return new Option(flags, `${what}, separated by commas`).default([...known], 'all').argParser((text: string) => {
    const names = text.split(',').map((name) => name.trim());
    const unknown = names.find((name) => !known.includes(name));
    if (unknown !== undefined)
      throw new InvalidArgumentError(`There is no "${unknown}"; there are ${known.join(', ')}.`);
    return names;
  });
}

const whole = (least: number) => (text: string) => {
  const number = Number(text);
  if (!Number.isInteger(number) || number < least)
    throw new InvalidArgumentError(`It must be a whole number of at least ${least}.`);
  return number;
};

function positive(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError('It must be a number above 0.');
  return number;
}
