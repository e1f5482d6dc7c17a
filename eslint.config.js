import js from '@eslint/js';
import tseslint from 'typescript-eslint';

/** Which room may import which (docs/architecture.md). A pattern is a path as it is written in an import. */
const forbid = (...patterns) => [
  'error',
  { patterns: patterns.map(([group, message]) => ({ group: [group], message })) },
];
const noCli = ['**/cli/**', 'Nothing imports the command line.'];

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**', '.tools/**'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      'no-restricted-imports': forbid(noCli),
    },
  },
  {
    files: ['workflows/**/*.ts'],
    rules: {
      'no-restricted-imports': forbid(
        noCli,
        ['node:*', 'Workflow code is deterministic; do this in an activity.'],
        ['pg', 'Workflow code talks to no server; do this in an activity.'],
        ['**/src/postgres/**', 'Workflows import only src/domain and src/contract.'],
        ['**/src/preflight/**', 'Workflows import only src/domain and src/contract.'],
        ['**/src/temporal/**', 'Workflows import only src/domain and src/contract.'],
      ),
    },
  },
  {
    files: ['src/domain/**/*.ts', 'src/contract.ts'],
    rules: {
      'no-restricted-imports': forbid(
        noCli,
        ['node:*', 'The domain is pure; workflows import it.'],
        ['pg', 'The domain is pure; workflows import it.'],
        ['**/postgres/**', 'The domain is pure; workflows import it.'],
        ['**/activities/**', 'The domain is pure; workflows import it.'],
      ),
    },
  },
  {
    files: ['src/postgres/**/*.ts'],
    rules: {
      'no-restricted-imports': forbid(
        noCli,
        ['**/activities/**', 'src/postgres is what one server can be asked or told; steps are built on it.'],
        ['@temporalio/*', 'src/postgres knows nothing of Temporal.'],
      ),
    },
  },
  {
    files: ['src/cli/**/*.ts', 'test/**/*.ts', 'demo/**/*.ts', 'bench/**/*.ts'],
    rules: { 'no-restricted-imports': 'off' },
  },
  {
    // Tests call steps one by one; a step is a function that does not use `this`.
    files: ['test/**/*.ts'],
    rules: { '@typescript-eslint/unbound-method': 'off' },
  },
  {
    files: ['scripts/**/*.mjs', 'bin/pgtransit', '**/*.mjs'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly' } },
  },
);
