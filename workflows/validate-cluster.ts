import { setCurrentDetails } from '@temporalio/workflow';
import { asOwnFailure, toApplicationFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { blocks, capFindings, describeFinding } from '../src/domain/finding.ts';
import type { Finding } from '../src/domain/finding.ts';
import type { ClusterInspection, DatabaseInspection } from '../src/domain/migration.ts';
import type { Plan } from '../src/domain/plan.ts';
import { parsePlan } from '../src/domain/plan.ts';
import { step } from './step.ts';

type InspectedDatabase = DatabaseInspection & { sourceOid: number };

interface Inspection {
  servers: ClusterInspection['servers'];
  databases: InspectedDatabase[];
  findings: Finding[];
  searchAttributes: boolean;
}

export interface Validation extends Inspection {
  /** Databases that one of the servers does not let us into, e.g. by its pg_hba.conf: they fail, the others go on. */
  refused: InspectedDatabase[];
}

/** Inspects both servers and every database, and changes nothing. Findings are the result, whatever their severity. */
export async function validateCluster(
  input?: unknown,
): Promise<{ ok: boolean; databases: Omit<DatabaseInspection, 'findings'>[]; findings: Finding[] }> {
  const plan = readPlan(input);
  const { databases, findings } = await inspect(plan).catch((error: unknown) => {
    throw asOwnFailure(error);
  });
  const ok = !findings.some(blocks);
  setCurrentDetails(
    ok ? 'Nothing is in the way of a migration.' : `${findings.filter(blocks).length} findings are in the way.`,
  );
  return {
    ok,
    databases: databases.map(({ database, method, reason, tables, bytes }) => ({
      database,
      method,
      reason,
      tables,
      bytes,
    })),
    findings: capFindings(findings),
  };
}

/** @throws ApplicationFailure `ValidationFailed` with every finding, when one blocks */
export async function validate(plan: Plan): Promise<Validation> {
  const inspection = await inspect(plan);
  const refused = inspection.databases.filter(isRefused);
  const databases = inspection.databases.filter((database) => !isRefused(database));
  const blocking = inspection.findings.filter(
    (finding) => blocks(finding) && (databases.length === 0 || finding.code !== UNREACHABLE),
  );
  if (blocking.length === 0) return { ...inspection, databases, refused };
  const findings = capFindings(inspection.findings);
  const sentences = capFindings(blocking).map(describeFinding).join('\n').slice(0, MAX_MESSAGE);
  const count = blocking.length === 1 ? 'One finding is' : `${blocking.length} findings are`;
  throw toApplicationFailure(
    new MigrationError('ValidationFailed', `${count} in the way, and nothing was changed.\n${sentences}\n`),
    [findings.slice(0, MAX_FINDINGS)],
  );
}

/** The one finding of a database that nobody could look into. */
const UNREACHABLE = 'database-unreachable';

const isRefused = ({ findings }: InspectedDatabase): boolean => findings.some(({ code }) => code === UNREACHABLE);

/** A failure's message and details must stay far below Temporal's limits (2 MB a payload). */
const MAX_MESSAGE = 16_000;
const MAX_FINDINGS = 1_000;

/** At most this many databases are inspected at once, each over a session on either side. */
const INSPECTED_AT_ONCE = 8;

/** A wrong plan ends the workflow with one sentence for each mistake: the Temporal CLI does not check it. */
export function readPlan(input: unknown): Plan {
  try {
    return parsePlan(input);
  } catch (error) {
    if (error instanceof MigrationError) throw toApplicationFailure(error);
    throw error;
  }
}

async function inspect(plan: Plan): Promise<Inspection> {
  const { servers, databases, findings, searchAttributes } = await step(
    'inspectCluster',
    'inspect both servers, changing nothing',
    { plan },
  );
  const inspected: InspectedDatabase[] = [];
  for (let first = 0; first < databases.length; first += INSPECTED_AT_ONCE) {
    const batch = databases.slice(first, first + INSPECTED_AT_ONCE).map(async ({ database, sourceOid }) => ({
      ...(await step('inspectDatabase', `${database}: inspect on both servers, changing nothing`, {
        plan,
        servers,
        database,
        sourceOid,
      })),
      sourceOid,
    }));
    inspected.push(...(await Promise.all(batch)));
  }
  return {
    servers,
    databases: inspected,
    findings: [...findings, ...inspected.flatMap((database) => database.findings)],
    searchAttributes,
  };
}
