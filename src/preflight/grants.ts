import type { Finding } from '../domain/finding.ts';

/** Checks whose remedy is one SQL statement that gives a role what it lacks. */
const GRANTING = [
  'schema-usage',
  'table-select',
  'sequence-select',
  'large-object-select',
  'row-security',
  'create-publication',
  'fence',
  'table-owner',
  'target-create',
  'replication-attribute',
  'create-database',
  'create-subscription',
  'aiven-extras',
];

/** For each server on which several rights are missing, all of them as one script. */
export function grantScripts(findings: readonly Finding[], database: string | null): Finding[] {
  return (['source', 'target'] as const).flatMap((server) => {
    const lacking = findings.filter(
      (finding) => finding.server === server && GRANTING.includes(finding.code) && finding.unknown !== true,
    );
    const lines = [...new Set(lacking.map(({ remedy }) => remedy ?? ''))];
    if (lines.length < 2) return [];
    return [
      {
        ...{ code: 'grant-script', severity: 'info' as const, server, database, object: null },
        message: `What the role lacks on the ${server}${database === null ? '' : ' in this database'}, in one script for a superuser or the owner.`,
        remedy: lines.join('\n'),
      },
    ];
  });
}
