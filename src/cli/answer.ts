import process from 'node:process';
import { blocks } from '../domain/finding.ts';
import type { Finding } from '../domain/finding.ts';
import type { ClusterProgress } from '../domain/progress.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import type { Outcome } from './outcome.ts';
import { countFindings, renderFindings } from './view/findings.ts';
import type { Answer } from './view/report.ts';
import { renderReport } from './view/report.ts';
import { writeReportFile } from './view/report-file.ts';
import { progressLine } from './view/summary.ts';
import { plain, plainLines } from './view/text.ts';
import { wrap } from './view/width.ts';

export const INTERRUPTED = 130;

const nothing = { validation: null, roles: [], databases: [], message: '' };

/** What a command answers: the text for people, and the object for programs. */
export interface Delivery {
  answer: Answer;
  text: string;
}

export const answerOf = {
  outcome(id: string, { status, message, report, findings }: Outcome): Delivery {
    const exitCode = status === 'done' ? 0 : 1;
    const { roles = [], databases = [] } = report ?? {};
    const answer = { ...nothing, id, status, message, exitCode, validation: findings, roles, databases };
    const parts = [
      ...(report === null ? [] : [renderReport(report, process.stdout.columns)]),
      ...(findings === null ? [] : [renderFindings(worth(findings), process.stdout.columns)]),
      // Findings and report say it all, but for the first line.
      ...(message === '' ? [] : [shown((report ?? findings) ? (message.split('\n')[0] ?? '') : message)]),
      `${id}: ${status}`,
    ];
    return { answer, text: parts.join('\n\n') };
  },

  /** Of a migration that has not ended. */
  progress(id: string, { databases }: ClusterProgress): Delivery {
    const parked = databases.filter(({ answers }) => answers.length > 0);
    const status = parked.length > 0 ? 'parked' : 'running';
    const follows = databases.some(({ phase }) => phase === 'streaming') ? streams(id) : followsBack(id);
    const next =
      status === 'running'
        ? follows
        : `What is named above waits for you. Mend it, then run the same command again; or answer it, with the same -s and -t:
  pgtransit resolve retry ${id}   (or ${parked[0]?.answers.includes('skip') === true ? 'skip, abort' : 'abort'})`;
    const answer = { ...nothing, id, status, message: next, exitCode: parked.length > 0 ? 1 : 0, databases } as const;
    return {
      answer,
      text: [databases.map((database) => progressLine(database)).join('\n'), next, `${id}: ${status}`].join('\n\n'),
    };
  },

  validation(id: string, { ok, databases, findings }: Validation): Delivery {
    const answer = {
      ...nothing,
      id,
      status: ok ? 'valid' : 'refused',
      exitCode: ok ? 0 : 1,
      validation: findings,
    } as const;
    const inTheWay = findings.filter(blocks).length;
    const methods = databases.map(({ database, method, reason }) => plainLines(`${database}: ${method}. ${reason}`));
    const verdict = ok
      ? `Nothing is in the way (${countFindings(findings)}).`
      : `${inTheWay === 1 ? 'One finding is' : `${inTheWay} findings are`} in the way (${countFindings(findings)}).`;
    return {
      answer,
      text: [renderFindings(findings, process.stdout.columns), methods.join('\n'), verdict]
        .filter((part) => part !== '')
        .join('\n\n'),
    };
  },
};

const streams = (
  id: string,
): string => `Every change on the source arrives on the target, also while nothing of pgtransit runs.
  pgtransit status ${id}    how far behind it is
  pgtransit stop ${id}      end the replication when you cut over (or the same command with --stop-replication)`;

const followsBack = (
  id: string,
): string => `The target serves: lead the clients there. Every change on it arrives on the source.
  pgtransit rollback ${id}  go back to the source, with all that was written to the target
  pgtransit complete ${id}  stay on the target, and let the source go: the point of no return`;

/** Broken between words where the terminal would break it anywhere. */
const shown = (text: string): string =>
  plainLines(text)
    .split('\n')
    .flatMap((line) => wrap(line, process.stdout.columns ?? Infinity))
    .join('\n');

/** What a migration was refused for is not to be looked for among what is as it should be. */
const worth = (findings: readonly Finding[]): Finding[] =>
  findings.filter(({ severity, unknown }) => severity !== 'info' || unknown === true);

/** What `validateCluster` answers. */
export interface Validation {
  ok: boolean;
  databases: { database: string; method: string; reason: string }[];
  findings: Finding[];
}

/** Adds the passwords that this process made up for roles, and names those that only an earlier one knew. */
export function withPlaceholders({ answer, text }: Delivery, passwords: ReadonlyMap<string, string>): Delivery {
  const lines = [...passwords].map(([role, password]) => `  ${plain(role)}: ${password}`);
  for (const { role, placeholder } of answer.roles)
    if (placeholder && !passwords.has(role))
      lines.push(
        `  ${plain(role)}: was made up by another process, and nobody knows it; set a new one on the target:`,
        `    ALTER ROLE ${plain(quoteIdent(role))} PASSWORD '…';`,
      );
  return {
    answer: { ...answer, placeholders: Object.fromEntries(passwords) },
    text: lines.length === 0 ? text : ['Passwords that were made up for roles:', ...lines, '', text].join('\n'),
  };
}

/** Prints the answer, and writes it where it was asked for. Answers the exit code. */
export function deliver({ answer, text }: Delivery, options: { json: boolean; reportFile: string | null }): number {
  const json = `${JSON.stringify(answer, null, 2)}\n`;
  process.stdout.write(options.json ? json : `${text}\n`);
  if (options.reportFile !== null) writeReportFile(options.reportFile, json);
  return answer.exitCode;
}
