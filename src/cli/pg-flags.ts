import { Command, InvalidArgumentError, Option } from 'commander';
import type { Fence, Plan } from '../domain/plan.ts';
import { collect, splitList, splitNames } from './name-list.ts';
import { wholeNumber } from './whole-number.ts';

/** What commander makes of the flags below, with what holds where one is not given. */
export interface PgFlags {
  source?: string;
  target?: string;
  sourceForTarget?: string;
  filteredDb: readonly string[];
  excludedRoles: readonly string[];
  excludedExtensions: readonly string[];
  withTable: readonly string[];
  skipTable: readonly string[];
  replicateExtensionTables: boolean;
  createdb: boolean;
  owner: boolean;
  privileges: boolean;
  forceMethod: Plan['method'];
  dbsMaxTotalSize: number;
  skipDbVersionCheck: boolean;
  jobs?: number;
  indexJobs?: number;
  pgbin?: string;
  mangle: boolean;
  maxReplicationLag?: number;
  stopReplication: boolean;
  fence?: Fence;
  validate: boolean;
  json: boolean;
  reportFile?: string;
  showPasswords: boolean;
  migrationId?: string;
  verbose: boolean;
  debug: boolean;
  yes: boolean;
  again: boolean;
  detach: boolean;
  stateDir?: string;
}

/** Not told to commander, whose help would then say "default: false" a dozen times. */
const DEFAULTS = {
  ...{ filteredDb: [], excludedRoles: [], excludedExtensions: [], withTable: [], skipTable: [] },
  ...{ replicateExtensionTables: true, forceMethod: 'auto', dbsMaxTotalSize: -1 },
  ...{ skipDbVersionCheck: false, mangle: false, stopReplication: false, validate: false, json: false },
  ...{ showPasswords: false, verbose: false, debug: false, yes: false, again: false, detach: false },
} as const;

export const flagsOf = (command: Command): PgFlags => ({ ...DEFAULTS, ...command.opts<PgFlags>() });

/** aiven-db-migrate's names, and the plan's own. */
const METHODS: Readonly<Record<string, Plan['method']>> = {
  replication_with_dump_fallback: 'auto',
  replication: 'replication',
  dump: 'dump',
  schema_only: 'schema-only',
  auto: 'auto',
  'schema-only': 'schema-only',
};

const HELP = `
A password in the environment or in ~/.pgpass is better than one in a flag, which your shell's history keeps, and \`ps\`
shows for a moment. libpq's variables (PGPASSWORD, PGPASSFILE, PGSSLMODE, PGSSLROOTCERT, PGCONNECT_TIMEOUT, …), ~/.pgpass
and pg_service.conf fill in what a connection string leaves open. A flag wins over the environment.

Examples:
  Look first; nothing is changed:
    pgtransit pg --validate -s postgres://app@old.example/app -t postgres://app@new.example/app
  Migrate everything but two databases, wait until the target has every change, and end the replication:
    pgtransit pg -s "$OLD" -t "$NEW" --max-replication-lag 0 --stop-replication -f scratch,test
  Migrate two tables of one database, and let the changes stream until \`pgtransit stop\`:
    pgtransit pg -s "$OLD" -t "$NEW" --with-table 'shop.public.orders, shop.public.customers'

Exit codes: 0 done, or every database streams; 1 validation or a database failed; 2 wrong usage; 130 interrupted.
The same command again goes on where it was.`;

/** The command \`pg\` with every flag of aiven-db-migrate's, and ours beside them; what it does is its action's. */
export function pgFlags(): Command {
  const command = new Command('pg')
    .description('migrate databases, roles and tables from one PostgreSQL server to another')
    .usage('-s <uri> -t <uri> [options]')
    .addHelpText('after', HELP);
  servers(command.optionsGroup('Servers:'));
  scope(command.optionsGroup('What is migrated:'));
  manner(command.optionsGroup('How:'));
  end(command.optionsGroup('When it ends:'));
  answers(command.optionsGroup('What it says:'));
  running(command.optionsGroup('How it runs:'));
  return spellOutShortFlags(command);
}

function servers(command: Command): void {
  command
    .option('-s, --source <uri>', 'source server: URI, key=value string or service:NAME (else SOURCE_SERVICE_URI)')
    .option('-t, --target <uri>', 'target server, likewise (else TARGET_SERVICE_URI)')
    .option(
      '--source-for-target <uri>',
      'how the target server reaches the source, where that differs (else SOURCE_FOR_TARGET_SERVICE_URI)',
    );
}

function scope(command: Command): void {
  const names = (flags: string, description: string) => listOption(flags, description, splitNames);
  const tables = (flags: string, description: string) => listOption(flags, description, splitList);
  command
    .addOption(names('-f, --filtered-db <names>', 'databases to leave out, separated by commas'))
    .addOption(names('-xr, --excluded-roles <names>', 'roles to leave out'))
    .addOption(names('-xe, --excluded-extensions <names>', 'extensions to leave out'))
    .addOption(
      tables(
        '--with-table <tables>',
        'rows of these tables only: t, s.t or db.s.t, quoted as in SQL, with * and ?; separated by commas or repeated',
      ),
    )
    .addOption(tables('--skip-table <tables>', 'rows of all tables but these').conflicts('withTable'))
    .option('--replicate-extension-tables', "rows of extensions' configuration tables too (default)")
    .option('--no-replicate-extension-tables', '… or not')
    .option('--no-createdb', 'take databases that are there on the target, and create none')
    .option('--no-owner', 'everything on the target belongs to the migrating user')
    .option('--no-privileges', 'leave out GRANTs and default privileges');
}

function manner(command: Command): void {
  command
    .addOption(
      new Option(
        '--force-method <method>',
        'default: replication_with_dump_fallback, decided for each database before anything is changed',
      )
        .choices(['replication', 'dump', 'schema_only', 'replication_with_dump_fallback'])
        .argParser(readMethod),
    )
    .addOption(
      new Option('--dbs-max-total-size <bytes>', 'refuse when the databases are bigger together').argParser(
        wholeNumber(-1),
      ),
    )
    .option('--skip-db-version-check', 'allow a target that is older than the source')
    .addOption(
      new Option('--jobs <n>', 'tables of one database copied at once (default: 4)').argParser(wholeNumber(1, 64)),
    )
    .addOption(
      new Option('--index-jobs <n>', 'indexes of one database built at once (default: 2)').argParser(
        wholeNumber(1, 64),
      ),
    )
    .option('--pgbin <directory>', 'where pg_dump and pg_restore are (default: found by version)')
    .option('-m, --mangle', 'accepted and needless: database names of any kind work');
}

function end(command: Command): void {
  command
    .addOption(
      new Option(
        '--max-replication-lag <bytes>',
        'how far the target may be behind when the replication is stopped (default with --stop-replication: 0)',
      ).argParser(wholeNumber(-1)),
    )
    .option('--stop-replication', 'stop when the target has caught up; without it changes stream until `stop`')
    .addOption(
      new Option('--fence [kind]', 'keep writers out of the source databases while stopping')
        .choices(['read-only', 'lock-out', 'external'])
        .preset('read-only'),
    );
}

function answers(command: Command): void {
  command
    .option('--validate', 'only check, and print what was found')
    .option('--json', 'the result as one JSON object')
    .option('--report-file <file>', 'write the result as JSON into a file that only you can read')
    .option('--show-passwords', 'show the passwords made up for roles whose own could not be read')
    .option('--migration-id <label>', 'put a label on every line of the log')
    .option('-v, --verbose', 'log what pg_dump says and every object that is restored')
    .option('-d, --debug', 'log everything, and where an error came from');
}

function running(command: Command): void {
  command
    .option('--yes', 'ask nothing')
    .option('--again', 'migrate once more what was already finished')
    .option('--detach', 'return at once; the migration goes on in the background')
    .option(
      '--state-dir <directory>',
      "where pgtransit's own Temporal server keeps its file (else PGTRANSIT_STATE_DIR)",
    );
}

function listOption(flags: string, description: string, split: typeof splitList): Option {
  const long = /--[a-z-]+/.exec(flags)?.[0] ?? flags;
  const option = new Option(flags.replace(TWO_LETTERS, ''), description).argParser(collect(split, long));
  // For the help only: commander itself knows short flags of one letter.
  option.flags = flags;
  return option;
}

const TWO_LETTERS = /^-[a-z]{2}, /;

/** `-xr` and `-xe` are what aiven-db-migrate calls them; commander would read them as `-x` with the value `r`. */
function spellOutShortFlags(command: Command): Command {
  const long = new Map<string, string>();
  for (const { flags, long: name } of command.options) {
    const short = TWO_LETTERS.exec(flags)?.[0].slice(0, 3);
    if (short !== undefined && name !== undefined) long.set(short, name);
  }
  const spellOut = (argument: string) => {
    const [short = '', ...value] = argument.split('=');
    const name = long.get(short);
    return name === undefined ? argument : [name, ...value].join('=');
  };
  const parseOptions = command.parseOptions.bind(command);
  command.parseOptions = (argv) => parseOptions(argv.map(spellOut));
  return command;
}

function readMethod(text: string): Plan['method'] {
  const method = METHODS[text];
  if (method !== undefined) return method;
  throw new InvalidArgumentError('It can be replication, dump, schema_only or replication_with_dump_fallback.');
}
