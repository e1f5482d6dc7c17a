export type Status = 'ok' | 'warning' | 'problem' | 'unknown';

/** One line of `doctor`. */
export interface Check {
  what: string;
  status: Status;
  message: string;
  /** What to do. */
  remedy: string | null;
}

export const check = (what: string, status: Status, message: string, remedy: string | null = null): Check => ({
  what,
  status,
  message,
  remedy,
});
