import type { RoleReport } from '../domain/progress.ts';
import { attempt } from './attempt.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteLiteral } from './identifier.ts';
import type { Membership, ParameterPrivilege, Role, RolePassword } from './role.ts';
import {
  alterRoleSettingSql,
  createRoleSql,
  grantMembershipSql,
  grantParameterSql,
  needsPlaceholder,
  passwordFor,
  readRoleNames,
} from './role.ts';
import type { AllRolesSettings } from './role-all.ts';
import { restoreAllRolesSettings } from './role-all.ts';
import { silenceStatementLog } from './secret-statement.ts';

export interface RoleSet {
  roles: readonly Role[];
  memberships: readonly Membership[];
  parameters: readonly ParameterPrivilege[];
  allRoles: AllRolesSettings;
}

export interface RestoreOptions {
  passwords: 'copy' | 'placeholder';
  /** An earlier attempt may have made roles and died before it could tell. */
  again: boolean;
}

export interface RestoredRoles {
  reports: RoleReport[];
  /** The random passwords, by role. For nobody's eyes but those of who asked for them. */
  placeholders: ReadonlyMap<string, string>;
}

/**
 * Makes the roles that the target lacks, in one transaction with their memberships: an attempt that dies leaves
 * nothing, so that a role which exists is never one of ours without its grants. What fails is undone by itself.
 */
export async function restoreRoles(
  target: Session,
  set: RoleSet,
  { passwords, again }: RestoreOptions,
): Promise<RestoredRoles> {
  return target.transaction(async () => {
    await target.query("SELECT pg_advisory_xact_lock(hashtext('pgtransit'), hashtext('roles'))");
    await silenceStatementLog(target);
    const present = await readRoleNames(target);
    const created = new Set<string>();
    const reports = new Map<string, RoleReport>();
    const placeholders = new Map<string, string>();
    for (const role of set.roles) {
      if (present.has(role.name)) {
        const mayBeOurs = again && needsPlaceholder(role, passwords);
        reports.set(role.name, reportOf(role, 'exists', mayBeOurs ? MAY_BE_OURS : THERE));
        continue;
      }
      const password = await passwordFor(role, passwords);
      const report = await createRole(target, role, password);
      reports.set(role.name, report);
      if (report.status !== 'created') continue;
      created.add(role.name);
      if (password.placeholder !== null) placeholders.set(role.name, password.placeholder);
    }
    const note = (role: string, message: string) => {
      const report = reports.get(role);
      if (report !== undefined) report.message = `${report.message} ${message}`.trim();
    };
    await grantMemberships(target, set.memberships, { present, created, note });
    await grantParameters(target, set.parameters, { present, created, note });
    for (const [role, report] of reports) if (report.message === '') note(role, 'It is as on the source.');
    const allRoles = await restoreAllRolesSettings(target, set.allRoles);
    return { reports: [...reports.values(), ...(allRoles === null ? [] : [allRoles])], placeholders };
  });
}

const THERE = 'It was there already and is left as it is.';
const MAY_BE_OURS = `${THERE} If an earlier attempt of this step made it, its password is random: set a new one.`;

const reportOf = (role: Role, status: RoleReport['status'], message: string, placeholder = false): RoleReport => ({
  role: role.name,
  status,
  placeholder,
  message,
});

async function createRole(target: Session, role: Role, password: RolePassword): Promise<RoleReport> {
  const notes: string[] = [];
  if (password.placeholder !== null) notes.push('It has a random password: set a new one.');
  let refusal = await attempt(target, createRoleSql(role, password.stored, true));
  if (refusal?.sqlstate === INSUFFICIENT_PRIVILEGE) {
    refusal = await attempt(target, createRoleSql(role, password.stored, false));
    for (const attribute of refusal === null ? role.attributes : []) {
      const refused = await attempt(target, `ALTER ROLE ${quoteIdent(role.name)} ${attribute}`);
      if (refused !== null) notes.push(`It lost ${attribute}: ${refused.message}.`);
    }
  }
  if (refusal?.sqlstate === DUPLICATE_OBJECT)
    return reportOf(role, 'exists', 'Somebody else made it at the same moment.');
  if (refusal !== null) return reportOf(role, 'failed', `${refusal.message}.`);
  for (const setting of role.settings) {
    const refused = await attempt(target, alterRoleSettingSql(role.name, setting));
    if (refused !== null) notes.push(`It lost the setting ${setting.split('=')[0] ?? ''}: ${refused.message}.`);
  }
  if (role.comment !== null) {
    const refused = await attempt(target, `COMMENT ON ROLE ${quoteIdent(role.name)} IS ${quoteLiteral(role.comment)}`);
    if (refused !== null) notes.push(`It lost its comment: ${refused.message}.`);
  }
  await actForRole(target, role.name);
  return reportOf(role, 'created', notes.join(' '), password.placeholder !== null);
}

/** Before 16 a role that is no superuser must be a member of the owner to whom it gives an object. */
async function actForRole(target: Session, role: string): Promise<void> {
  if (target.version >= 160000) return;
  const { superuser } = await target.one<{ superuser: boolean }>(
    `SELECT current_setting('is_superuser')::bool AS superuser`,
  );
  if (!superuser) await attempt(target, `GRANT ${quoteIdent(role)} TO CURRENT_USER`);
}

interface Context {
  /** Before we began. */
  present: ReadonlySet<string>;
  created: ReadonlySet<string>;
  note: (role: string, message: string) => void;
}

/** Only what touches a new role: memberships between roles that were there are the target's own business. */
async function grantMemberships(target: Session, memberships: readonly Membership[], context: Context): Promise<void> {
  const { present, created, note } = context;
  const there = (role: string) => present.has(role) || created.has(role);
  for (const { role, member } of memberships)
    if (created.has(member) && !there(role))
      note(member, `It is no member of ${quoteIdent(role)}, which is not there.`);
  let pending = memberships.filter(
    ({ role, member }) => there(role) && there(member) && (created.has(role) || created.has(member)),
  );
  // A grantor needs ADMIN, which another of these grants may give: go round until nothing moves.
  for (let before = -1; pending.length !== before;) {
    before = pending.length;
    const refused: Membership[] = [];
    for (const membership of pending)
      if ((await attempt(target, grantMembershipSql(membership, target.version, true))) !== null)
        refused.push(membership);
    pending = refused;
  }
  for (const membership of pending) {
    const refusal = await attempt(target, grantMembershipSql(membership, target.version, false));
    const { role, member, grantor } = membership;
    if (refusal !== null) note(member, `It is no member of ${quoteIdent(role)}: ${refusal.message}.`);
    else note(member, `Its membership in ${quoteIdent(role)} is no longer granted by ${quoteIdent(grantor ?? '')}.`);
  }
}

async function grantParameters(
  target: Session,
  parameters: readonly ParameterPrivilege[],
  context: Context,
): Promise<void> {
  if (target.version < 150000) return;
  for (const privilege of parameters) {
    const { grantee, parameter } = privilege;
    if (grantee !== null && !context.created.has(grantee)) continue;
    const refusal = await attempt(target, grantParameterSql(privilege));
    if (refusal !== null && grantee !== null) context.note(grantee, `It may not set ${parameter}: ${refusal.message}.`);
  }
}

const INSUFFICIENT_PRIVILEGE = '42501';
const DUPLICATE_OBJECT = '42710';
