import type { Option } from 'commander';
import { Argument, Command } from 'commander';

const HELP = `
Examples:
  source <(pgtransit completion bash)                                     in ~/.bashrc
  source <(pgtransit completion zsh)                                      in ~/.zshrc, after compinit
  pgtransit completion fish > ~/.config/fish/completions/pgtransit.fish`;

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript };

export function completionCommand(program: Command): Command {
  return new Command('completion')
    .description('print a script that completes commands and options in your shell')
    .addArgument(new Argument('<shell>', 'which shell').choices(Object.keys(SCRIPTS)))
    .addHelpText('after', HELP)
    .action((shell: keyof typeof SCRIPTS) => void process.stdout.write(completionScript(program, shell)));
}

/** Read off the commands. The script does not call us: a Node process at each press of the key is slow. */
export const completionScript = (program: Command, shell: keyof typeof SCRIPTS): string =>
  SCRIPTS[shell](describe(program));

interface Described {
  name: string;
  description: string;
  options: DescribedOption[];
  /** Of its first argument. */
  choices: readonly string[];
}

interface DescribedOption {
  /** `-s`, `-xr`, `--source`: as they are typed. */
  names: string[];
  description: string;
  /** null: it takes none. */
  value: null | readonly string[] | 'file' | 'directory' | 'text';
}

/** The program first, then its commands. */
function describe(program: Command): Described[] {
  const help = program.createHelp();
  return [program, ...help.visibleCommands(program).filter((command) => command.name() !== 'help')].map((command) => ({
    name: command === program ? '' : command.name(),
    description: command.description(),
    options: help.visibleOptions(command).map(describeOption),
    choices: command.registeredArguments[0]?.argChoices ?? [],
  }));
}

function describeOption({ flags, description, argChoices, required, optional }: Option): DescribedOption {
  const names = flags.match(/(?<=^|, )--?[A-Za-z][\w-]*/g) ?? [];
  const kind = /<(file|directory)>/.exec(flags)?.[1];
  const text = kind === 'file' || kind === 'directory' ? kind : 'text';
  return { names, description, value: required || optional ? (argChoices ?? text) : null };
}

const namesOf = ({ options }: Described): string[] => options.flatMap(({ names }) => names);

function bashScript(described: Described[]): string {
  const commands = described.slice(1);
  const values = commands.flatMap(({ name, options }) =>
    options
      .filter(({ value }) => value !== null)
      .map(({ names, value }) => {
        const patterns = names.map((option) => `"${name} ${option}"`).join('|');
        const words = Array.isArray(value) ? `-W "${value.join(' ')}"` : { file: '-f', directory: '-d' }[String(value)];
        return `    ${patterns}) ${words === undefined ? '' : `COMPREPLY=($(compgen ${words} -- "$current")); `}return ;;`;
      }),
  );
  const words = described.map(
    (command) =>
      `    "${command.name}") words="${[...(command.name === '' ? commands.map(({ name }) => name) : command.choices), ...namesOf(command)].join(' ')}" ;;`,
  );
  return `# pgtransit's completion for bash
_pgtransit() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" command="" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ "\${COMP_WORDS[i]}" != -* ]]; then command="\${COMP_WORDS[i]}"; break; fi
  done
  COMPREPLY=()
  case "$command $previous" in
${values.join('\n')}
  esac
  case "$command" in
${words.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _pgtransit pgtransit
`;
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

function zshScript(described: Described[]): string {
  const [, ...commands] = described;
  const plain = (text: string) => text.replaceAll(/[[\]:\\]/g, '\\$&');
  const spec = ({ names, description, value }: DescribedOption): string => {
    const after =
      value === null
        ? ''
        : Array.isArray(value)
          ? `:value:(${value.join(' ')})`
          : { file: ':file:_files', directory: ':directory:_files -/', text: ':value:' }[String(value)];
    return names
      .map((name) => quoted(`(${names.join(' ')})${name}[${plain(description)}]${after ?? ''}`))
      .join(' \\\n        ');
  };
  const cases = commands.map(({ name, options, choices }) => {
    const specs = options.map(spec);
    if (choices.length > 0) specs.push(quoted(`1:value:(${choices.join(' ')})`));
    return `      ${name}) _arguments \\\n        ${specs.join(' \\\n        ')} ;;`;
  });
  const list = commands.map(({ name, description }) => `    ${quoted(`${name}:${plain(description)}`)}`);
  return `#compdef pgtransit
# pgtransit's completion for zsh
_pgtransit() {
  local -a commands=(
${list.join('\n')}
  )
  local context state state_descr line
  typeset -A opt_args
  _arguments -C '1: :->command' '*:: :->rest'
  case "$state" in
    command) _describe command commands ;;
    rest) case "$words[1]" in
${cases.join('\n')}
    esac ;;
  esac
}
compdef _pgtransit pgtransit
`;
}

function fishScript(described: Described[]): string {
  const [, ...commands] = described;
  const start = `complete -c pgtransit -n __fish_use_subcommand`;
  const option = (name: string) =>
    name.startsWith('--') ? `-l ${name.slice(2)}` : `${name.length > 2 ? '-o' : '-s'} ${name.slice(1)}`;
  const takes = (value: DescribedOption['value']): string => {
    if (value === null) return '';
    if (Array.isArray(value)) return ` -x -a ${quoted(value.join(' '))}`;
    return { file: ' -r -F', directory: ` -x -a '(__fish_complete_directories)'`, text: ' -x' }[String(value)] ?? '';
  };
  return [
    "# pgtransit's completion for fish",
    'complete -c pgtransit -f',
    ...commands.map(({ name, description }) => `${start} -a ${name} -d ${quoted(description)}`),
    ...commands.flatMap(({ name, options, choices }) => {
      const inside = `complete -c pgtransit -n '__fish_seen_subcommand_from ${name}'`;
      return [
        ...(choices.length > 0 ? [`${inside} -a ${quoted(choices.join(' '))}`] : []),
        ...options.map(
          ({ names, description, value }) =>
            `${inside} ${names.map(option).join(' ')}${takes(value)} -d ${quoted(description)}`,
        ),
      ];
    }),
    '',
  ].join('\n');
}
