// jsforce, unchanged, against a running sandbox. No part of `make test`:
//   npm install jsforce@3
//   drover-sandbox credentials --system salesforce > credentials.json
//   node jsforce.js http://127.0.0.1:PORT credentials.json
const jsforce = require('jsforce');
const [url, file] = process.argv.slice(2);
const known = JSON.parse(require('fs').readFileSync(file));
let failed = 0;

async function step(name, work, expected) {
  let said;
  try {
    said = await work();
  } catch (error) {
    said = error.errorCode || `${error.name}: ${error.message}`;
    if (said !== expected) failed += 1;
    console.log(said === expected ? 'ok  ' : 'FAIL', name, said);
    return undefined;
  }
  if (expected) failed += 1;
  console.log(expected ? 'FAIL' : 'ok  ', name, (JSON.stringify(said) || '').slice(0, 60));
  return said;
}

(async () => {
  const wait = { pollInterval: 200, pollTimeout: 60000 };
  const c = new jsforce.Connection({ loginUrl: url, version: '62.0' });
  await step('SOAP login', () => c.login(known.username, known.password));
  const app = { loginUrl: url, clientId: known.client_id, clientSecret: known.client_secret };
  const o = new jsforce.Connection({ instanceUrl: url, oauth2: app });
  await step('client credentials', () => o.authorize({ grant_type: 'client_credentials' }));
  await step('identity', () => o.identity());
  await step('describe', async () => (await c.describe('Task')).fields.length);
  const all = { autoFetch: true, maxFetch: 1000000 };
  await step('query', async () => (await c.query('SELECT Id FROM Contact', all)).records.length);
  const made = await step('create', () => c.sobject('Account').create({ Name: 'A' }));
  await step('update', () => c.sobject('Account').update({ Id: made.id, Name: 'B' }));
  const row = { Name: 'U', External_Id__c: `J-${Date.now()}` };
  await step('upsert', () => c.sobject('Account').upsert(row, 'External_Id__c'));
  await step('bulk 2 query', async () => {
    let count = 0;
    for await (const _ of await c.bulk2.query('SELECT Id FROM Contact', wait)) count += 1;
    return count;
  });
  const load = { object: 'Account', operation: 'insert', input: [{ Name: 'b' }], ...wait };
  await step('bulk 2 load', () => c.bulk2.loadAndWaitForResults(load));
  await step('bulk 1 load', () => c.bulk.load('Account', 'insert', [{ Name: 'v' }]));
  await step('delete', () => c.sobject('Account').destroy(made.id));
  await step('gone', () => c.sobject('Account').retrieve(made.id), 'ENTITY_IS_DELETED');
  await step('bad query', () => c.query('SELECT Nope FROM Account'), 'INVALID_FIELD');
  await step('logout', () => c.logout());
  process.exit(failed ? 1 : 0);
})();
