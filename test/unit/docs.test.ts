import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { projectRoot } from '../../lab/tools.ts';
import { pgFlags } from '../../src/cli/pg-flags.ts';
import { buildProgram } from '../../src/cli/program.ts';
import type { FailureType } from '../../src/domain/failure.ts';
import { canPark, FAILURES } from '../../src/domain/failure.ts';
import { hasEnded, PHASES } from '../../src/domain/phase.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import { CHECKS } from '../../src/preflight/checks.ts';
import { createSecrets } from '../../src/temporal/secrets.ts';

const file = (name: string): string => readFileSync(path.join(projectRoot, name), 'utf8');
const README = file('README.md');
const OPERATIONS = file('docs/operations.md');
const FAILURES_PAGE = file('docs/failures.md');
const GUIDE = file('docs/coming-from-aiven-db-migrate.md');
const PAGES = [
  'README.md',
  'CHANGELOG.md',
  ...readdirSync(path.join(projectRoot, 'docs')).map((name) => `docs/${name}`),
];

/** The rows of the first table below a heading, cell by cell. */
function tableBelow(page: string, heading: string): string[][] {
  const section = page.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  const [table = ''] = /(^\|.*\n)+/m.exec(section) ?? [];
  return table
    .split('\n')
    .slice(2, -1)
    .map((line) => line.slice(1, -1).split(/(?<!\\)\|/))
    .map((cells) => cells.map((cell) => cell.trim()));
}

/** The items of the list below a heading: what is bold, and the text after it. */
function itemsBelow(page: string, heading: string): { what: string; text: string }[] {
  const section = page.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  return section
    .split(/^- \*\*/m)
    .slice(1)
    .map((item) => item.replace(/\s+/g, ' ').split('.** '))
    .map(([what = '', ...text]) => ({ what, text: text.join('.** ') }));
}

const codeSpans = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code);

const filesBelow = (folder: string): string[] =>
  readdirSync(path.join(projectRoot, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => path.join(folder, name));

describe('the guide for users of aiven-db-migrate', () => {
  const tests = itemsBelow(GUIDE, 'Their tests, and ours for the same');
  const weaknesses = itemsBelow(GUIDE, 'Its weaknesses, and the test that would find each in us');

  it('has each of their 88 tests once', () => {
    const numbers = tests.flatMap(({ what }) => {
      const [first = 0, last = first] = (what.split(':')[0] ?? '').split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
    expect(numbers).toEqual(Array.from({ length: 88 }, (_, i) => i + 1));
  });

  it.each([...tests, ...weaknesses])('names tests that exist, or says why there is none: $what', ({ text }) => {
    const named = [...text.matchAll(/`((?:unit|activities|workflows|cli|e2e|replay|matrix)\/[a-z-]+)`|“([^”]+)”/g)];
    if (!text.startsWith('None: ')) expect(named.some(([, , title]) => title !== undefined)).toBe(true);
    let source = '';
    for (const [, name, title = ''] of named) {
      if (name !== undefined) source = file(`test/${name}.test.ts`);
      // As it stands in the source; a case of a table, and a finding that must come, are strings there too.
      else
        expect(
          ["'", '"', '`'].some((quote) => source.includes(quote + title + quote)),
          title,
        ).toBe(true);
    }
  });

  it('has every flag of pgtransit pg', () => {
    const spelled = (long: string): string => long.replace(/^--(no-)?replicate/, '--[no-]replicate');
    expect(pgFlags().options.filter(({ long }) => !GUIDE.includes(spelled(long ?? '')))).toEqual([]);
  });
});

describe('the list of findings', () => {
  const listed = tableBelow(OPERATIONS, 'Findings').map(([code = '', severity = '']) => ({
    code: codeSpans(code)[0] ?? '',
    severity,
  }));
  const sources = [...filesBelow('src/preflight'), ...filesBelow('activities')].map(file).join('\n');

  it('has every code once, and no other', () => {
    const codes = [...sources.matchAll(/\bcode: '([a-z-]+)'|\bfinding\(\s*'([a-z-]+)'/g)].map(
      (match) => match[1] ?? match[2] ?? '',
    );
    for (const { code } of CHECKS) expect(codes).toContain(code);
    expect(listed.map(({ code }) => code).sort()).toEqual([...new Set(codes)].sort());
  });

  it('says which severity each check has', () => {
    for (const { code, severity } of CHECKS)
      expect(listed.find((entry) => entry.code === code)?.severity, code).toContain(severity);
  });
});

describe('the runbook of failures', () => {
  const section = (heading: string): { type: string; text: string }[] =>
    (FAILURES_PAGE.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '')
      .split('\n### ')
      .slice(1)
      .map((entry) => ({ type: entry.split('\n')[0] ?? '', text: entry.replace(/\s+/g, ' ') }));
  const types = (wanted: (type: FailureType) => boolean): string[] =>
    (Object.keys(FAILURES) as FailureType[]).filter(wanted).sort();
  const listed = (heading: string): string[] =>
    section(heading)
      .map(({ type }) => type)
      .sort();

  it('has each type once, where it belongs', () => {
    expect(listed('Those that park')).toEqual(types(canPark));
    expect(listed('Those that are tried again')).toEqual(types((type) => FAILURES[type].retry));
    expect(listed('Those that end it')).toEqual(types((type) => !canPark(type) && !FAILURES[type].retry));
  });

  it.each(section('Those that park'))('says what to answer to $type, and names the test that shows it', ({ text }) => {
    expect(text).toMatch(/`(retry|abort)`/);
    const [, name = '', title = ''] = /Test: `([a-z0-9]+\/[a-z-]+)` “([^”]+)”\.$/.exec(text.trim()) ?? [];
    expect(title).not.toBe('');
    expect(file(`test/${name}.test.ts`)).toContain(`'${title}'`);
  });
});

describe('README.md', () => {
  it('has every phase in its order', () => {
    const phases = tableBelow(README, 'How it works').map(([phase]) => phase);
    expect(phases).toEqual(PHASES.filter((phase) => !hasEnded(phase)));
  });

  it('has every field of the plan with its default', () => {
    const leaves = (value: unknown, name: string): [string, unknown][] =>
      typeof value === 'object' && value !== null && !Array.isArray(value)
        ? Object.entries(value).flatMap(([key, inner]) => leaves(inner, name === '' ? key : `${name}.${key}`))
        : [[name, value]];
    const documented = tableBelow(README, 'The plan').flatMap(([fields = '', defaults = '']) => {
      const [first = '', ...others] = codeSpans(fields);
      const names = [first, ...others.map((name) => (name.startsWith('.') ? first.replace(/\.\w+$/, name) : name))];
      const values = codeSpans(defaults).map((text): unknown => (text.startsWith('env:') ? text : JSON.parse(text)));
      return names.map((name, i): [string, unknown] => [name, values[i] ?? values[0]]);
    });
    expect(documented.sort()).toEqual(leaves(parsePlan({}), '').sort());
  });
});

describe('.env.example', () => {
  /** What one process of ours tells another. */
  const INTERNAL = ['PGTRANSIT_BACKGROUND_ARGUMENTS'];

  it('names every variable of ours that the program reads, and no other', () => {
    const read = ['src', 'activities']
      .flatMap(filesBelow)
      .flatMap((name) => file(name).match(/\bPGTRANSIT_[A-Z_]+/g) ?? []);
    const named = [...file('.env.example').matchAll(/^#?(PGTRANSIT_[A-Z_]+)=/gm)].map(([, name]) => name);
    expect(named.sort()).toEqual([...new Set(read)].filter((name) => !INTERNAL.includes(name)).sort());
  });
});

describe.each(PAGES)('%s', (page) => {
  const text = file(page).replaceAll('\\\n', ' ');

  it('links to pages and headings that exist', () => {
    for (const [, target = ''] of text.matchAll(/\]\((?!https?:)([^)]+)\)/g)) {
      const [name = '', heading] = target.split('#');
      const linked = name === '' ? page : path.join(path.dirname(page), name);
      expect(existsSync(path.join(projectRoot, linked)), target).toBe(true);
      if (heading === undefined) continue;
      const headings = [...file(linked).matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
        title
          .toLowerCase()
          .replace(/[^\w\s-]/g, '')
          .replaceAll(' ', '-'),
      );
      expect(headings, target).toContain(heading);
    }
  });

  it('gives no command of pgtransit a flag that it does not have', () => {
    const program = buildProgram(createSecrets());
    const command = (name: string): Command | undefined => program.commands.find((one) => one.name() === name);
    for (const [, name = '', rest = ''] of text.matchAll(/\bpgtransit ([a-z]+)([^`\n#;]*)/g)) {
      const known = command(name)?.options.flatMap(({ long, short }) => [long, short]);
      for (const [flag] of known === undefined ? [] : rest.matchAll(/(?<=\s)--?[a-z][a-z-]*/g))
        if (flag !== '--help') expect(known, `pgtransit ${name} ${flag}`).toContain(flag);
    }
  });
});
