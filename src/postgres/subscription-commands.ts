import { MigrationError } from '../domain/failure.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteLiteral } from './identifier.ts';

/** The statements for a subscription whose slot has its name. */
export interface SubscriptionCommands {
  /** An SQL expression for `runSecretly`, which gives the statement the connection string. */
  create(name: string, publications: readonly string[]): string;
  enable(name: string): string;
  disable(name: string): string;
  /** The subscription only: a drop that knew the slot would drop that too, on the source, or fail with it. */
  drop(name: string): readonly string[];
}

const DIRECT: SubscriptionCommands = {
  create: (name, publications) =>
    `format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION %s WITH (create_slot = false, slot_name = %1$I, copy_data = false)',
            ${quoteLiteral(name)}, current_setting('pgtransit.hidden'), ${quoteLiteral(publications.map(quoteIdent).join(', '))})`,
  enable: (name) => `ALTER SUBSCRIPTION ${quoteIdent(name)} ENABLE`,
  disable: (name) => `ALTER SUBSCRIPTION ${quoteIdent(name)} DISABLE`,
  drop: (name) => [
    `ALTER SUBSCRIPTION ${quoteIdent(name)} DISABLE`,
    `ALTER SUBSCRIPTION ${quoteIdent(name)} SET (slot_name = NONE)`,
    `DROP SUBSCRIPTION IF EXISTS ${quoteIdent(name)}`,
  ],
};

const call = (what: string, name: string, more = ''): string =>
  `SELECT aiven_extras.${what}(arg_subscription_name => ${quoteLiteral(name)}${more})`;

/** Functions that run as the superuser who owns them. So that one owns the subscription, and changes are applied as him. */
const BY_AIVEN_EXTRAS: SubscriptionCommands = {
  create: (name, publications) => {
    // Which is why nothing is cut into key ranges where it is used, unless our role could subscribe by itself then.
    if (publications.length > 1)
      throw new MigrationError(
        'PrivilegeMissing',
        `Subscription ${name} is of ${publications.length} publications, which aiven_extras cannot subscribe to.`,
        { object: name, next: 'Let our role on the target subscribe by itself again, then resolve with retry.' },
      );
    return `format('SELECT aiven_extras.pg_create_subscription(arg_subscription_name => %L, arg_connection_string => %L,
                    arg_publication_name => %1$L, arg_slot_name => %1$L, arg_slot_create => false, arg_copy_data => false)',
            ${quoteLiteral(name)}, current_setting('pgtransit.hidden'))`;
  },
  enable: (name) => call('pg_alter_subscription_enable', name),
  disable: (name) => call('pg_alter_subscription_disable', name),
  drop: (name) => [call('pg_drop_subscription', name, ', arg_drop_repl_slot => false')],
};

/** The one place that decides how our role subscribes: by itself, or where it may not, by the functions that are there. */
export const subscriptionCommands = async (target: Session): Promise<SubscriptionCommands> =>
  !(await maySubscribe(target)) && (await readExtras(target)).installed ? BY_AIVEN_EXTRAS : DIRECT;

/** Before 16 superusers only. What stands in for them on other managed servers has no aiven_extras, and no need of it. */
export async function maySubscribe(target: Session): Promise<boolean> {
  const granted = target.version >= 160000 ? `pg_has_role('pg_create_subscription', 'USAGE')` : 'false';
  const sql = `SELECT current_setting('is_superuser')::bool OR ${granted} AS may`;
  return (await target.one<{ may: boolean }>(sql)).may;
}

/** Of the extension: whether its files are on the server, it is in this database, and our role may call it there. */
export const readExtras = (target: Session): Promise<{ available: boolean; installed: boolean; usable: boolean }> =>
  target.one(
    `SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'aiven_extras') AS available,
            EXISTS (SELECT FROM pg_extension WHERE extname = 'aiven_extras') AS installed,
            coalesce(has_schema_privilege(to_regnamespace('aiven_extras'), 'USAGE'), false) AS usable`,
  );
