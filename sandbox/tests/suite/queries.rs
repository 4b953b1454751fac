//! SOQL over HTTP: what is found, in which order, page by page.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{DATA, Sandbox, keys};

/// An org with a few known accounts and contacts.
async fn small() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let mut ids = Vec::new();
    for (at, fields) in [
        json!({"Name": "Acme", "AnnualRevenue": 100, "Industry": "Energy", "Website": "acme.example.com"}),
        json!({"Name": "acme two", "AnnualRevenue": 200.5, "Industry": "Banking"}),
        json!({"Name": "Zürich 100%", "NumberOfEmployees": 7}),
        json!({"Name": "O'Neill", "AnnualRevenue": -5, "Industry": "Energy"}),
    ]
    .into_iter()
    .enumerate()
    {
        let at = format!("2026-01-0{}T10:00:00Z", at + 1);
        ids.push(sandbox.edit(json!({"object": "Account", "create": fields, "at": at, "visible_after_ms": 0})).await);
    }
    for (last, account, email) in [
        ("A", Some(0), Some("a@example.com")),
        ("B", Some(0), None),
        ("C", None, Some("c+1@example.org")),
    ] {
        let mut fields = json!({"LastName": last, "Email": email, "Languages__c": if last == "A" { "English;French" } else { "" }});
        if let Some(account) = account {
            fields["AccountId"] = json!(ids[account as usize]);
        }
        sandbox
            .edit(json!({"object": "Contact", "create": fields}))
            .await;
    }
    (sandbox, ids)
}

#[tokio::test]
async fn conditions_and_orders() {
    let (sandbox, ids) = small().await;
    let first15 = &ids[0][..15];
    let table: Vec<(String, &str)> = vec![
        ("WHERE Name = 'ACME'".into(), "Acme"),
        ("WHERE Name LIKE 'acme%' ORDER BY Name".into(), "Acme, acme two"),
        ("WHERE Name LIKE '%100\\%'".into(), "Zürich 100%"),
        ("WHERE Name = 'O\\'Neill'".into(), "O'Neill"),
        ("WHERE AnnualRevenue = null".into(), "Zürich 100%"),
        ("WHERE AnnualRevenue != null ORDER BY AnnualRevenue".into(), "O'Neill, Acme, acme two"),
        ("WHERE AnnualRevenue != 100 ORDER BY AnnualRevenue".into(), "Zürich 100%, O'Neill, acme two"),
        ("WHERE AnnualRevenue >= 100 AND AnnualRevenue < 200.5".into(), "Acme"),
        ("ORDER BY AnnualRevenue DESC".into(), "Zürich 100%, acme two, Acme, O'Neill"),
        ("ORDER BY AnnualRevenue DESC NULLS LAST".into(), "acme two, Acme, O'Neill, Zürich 100%"),
        ("ORDER BY Industry NULLS LAST, Name DESC".into(), "acme two, O'Neill, Acme, Zürich 100%"),
        ("WHERE Industry IN ('Energy', 'Nope') ORDER BY Id".into(), "Acme, O'Neill"),
        ("WHERE Industry NOT IN ('Energy') ORDER BY Id".into(), "acme two, Zürich 100%"),
        ("WHERE NOT (Industry = 'Energy' OR Name LIKE 'z%')".into(), "acme two"),
        ("WHERE (Name = 'Acme' AND Industry = 'Banking') OR NumberOfEmployees = 7".into(), "Zürich 100%"),
        (format!("WHERE Id = '{first15}'"), "Acme"),
        (format!("WHERE Id > '{}' ORDER BY Id DESC", ids[1]), "O'Neill, Zürich 100%"),
        (format!("WHERE Id IN ('{}', '{}') ORDER BY Id", ids[3], ids[1]), "acme two, O'Neill"),
        ("WHERE SystemModstamp > 2026-01-02T10:00:00Z ORDER BY SystemModstamp".into(), "Zürich 100%, O'Neill"),
        ("WHERE SystemModstamp >= 2026-01-02T12:00:00.000+0200 AND CreatedDate < 2026-01-04T10:00:00+00:00 ORDER BY SystemModstamp DESC, Id DESC".into(), "Zürich 100%, acme two"),
        ("WHERE CreatedDate = 2026-01-01T10:00:00Z".into(), "Acme"),
        ("WHERE IsDeleted = true".into(), ""),
        ("WHERE Website = ''  ORDER BY Id LIMIT 2 OFFSET 1".into(), "Zürich 100%, O'Neill"),
        ("ORDER BY Name LIMIT 1".into(), "Acme"),
        ("LIMIT 0".into(), ""),
    ];
    for (clauses, expected) in table {
        let names = sandbox
            .column(&format!("select Name from account {clauses}"), "Name")
            .await;
        assert_eq!(names.join(", "), expected, "{clauses}");
    }
    let contacts: [(&str, &str); 6] = [
        ("WHERE Account.Name = 'Acme' ORDER BY LastName", "A, B"),
        ("WHERE c.Account.Industry != 'Energy'", "C"),
        (
            "WHERE Languages__c INCLUDES ('French;English', 'German')",
            "A",
        ),
        (
            "WHERE Languages__c EXCLUDES ('English') ORDER BY LastName",
            "B, C",
        ),
        (
            "WHERE CreatedDate = TODAY ORDER BY LastName DESC",
            "C, B, A",
        ),
        ("WHERE CreatedDate < LAST_N_DAYS:2", ""),
    ];
    for (clauses, expected) in contacts {
        let names = sandbox
            .column(
                &format!("SELECT LastName FROM Contact c {clauses}"),
                "LastName",
            )
            .await;
        assert_eq!(names.join(", "), expected, "{clauses}");
    }
}

#[tokio::test]
async fn records_are_printed_as_selected() {
    let (sandbox, ids) = small().await;
    let page = sandbox
        .query("SELECT lastname, Account.Name, Id, Account.Owner.Email, account.annualrevenue, CreatedDate FROM Contact ORDER BY LastName")
        .await;
    assert_eq!(keys(&page), ["totalSize", "done", "records"]);
    let first = &page["records"][0];
    assert_eq!(
        keys(first),
        ["attributes", "LastName", "Account", "Id", "CreatedDate"]
    );
    assert_eq!(
        first["Account"],
        json!({
            "attributes": {"type": "Account", "url": format!("{DATA}/sobjects/Account/{}", ids[0])},
            "Name": "Acme",
            "Owner": null,
            "AnnualRevenue": 100.0,
        })
    );
    assert_eq!(page["records"][2]["Account"], Value::Null);
    assert!(
        first["CreatedDate"]
            .as_str()
            .unwrap()
            .ends_with(".000+0000")
    );

    let page = sandbox
        .query("SELECT COUNT() FROM Contact WHERE Email != null")
        .await;
    assert_eq!(page, json!({"totalSize": 2, "done": true, "records": []}));
    let page = sandbox
        .query("SELECT COUNT(Email) n, COUNT(Id), MAX(LastName) FROM Contact")
        .await;
    assert_eq!(
        page["records"],
        json!([{"attributes": {"type": "AggregateResult"}, "n": 2, "expr0": 3, "expr1": "C"}])
    );
    let page = sandbox
        .query("SELECT Industry i, SUM(AnnualRevenue) FROM Account GROUP BY Industry")
        .await;
    let lines: Vec<(Value, Value)> = page["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["i"].clone(), line["expr0"].clone()))
        .collect();
    assert_eq!(
        lines,
        [
            (Value::Null, Value::Null),
            (json!("Banking"), json!(200.5)),
            (json!("Energy"), json!(95.0))
        ]
    );
    for (order, expected) in [
        ("Industry DESC", json!([null, "Energy", "Banking"])),
        (
            "Industry DESC NULLS LAST",
            json!(["Energy", "Banking", null]),
        ),
        (
            "SUM(AnnualRevenue), Industry",
            json!([null, "Energy", "Banking"]),
        ),
        (
            "SUM(AnnualRevenue) DESC NULLS LAST LIMIT 1",
            json!(["Banking"]),
        ),
        (
            "COUNT(Id) DESC, Industry LIMIT 2 OFFSET 1",
            json!([null, "Banking"]),
        ),
    ] {
        let soql = format!("SELECT Industry i FROM Account GROUP BY Industry ORDER BY {order}");
        let page = sandbox.query(&soql).await;
        let lines = page["records"].as_array().unwrap();
        let found: Value = lines.iter().map(|line| line["i"].clone()).collect();
        assert_eq!(found, expected, "{soql}");
    }
    let page = sandbox.query("SELECT Name, (SELECT LastName FROM Contacts ORDER BY LastName DESC) FROM Account ORDER BY Id LIMIT 2").await;
    assert_eq!(page["records"][0]["Contacts"]["totalSize"], 2);
    assert_eq!(
        page["records"][0]["Contacts"]["records"][0]["LastName"],
        "B"
    );
    assert_eq!(page["records"][1]["Contacts"], Value::Null);
}

#[tokio::test]
async fn bad_queries_say_where() {
    let (sandbox, _) = small().await;
    let place = |part: &str, column: usize| {
        format!(
            "\n{part}\n{}^\nERROR at Row:1:Column:{column}\n",
            " ".repeat(column - 1)
        )
    };
    let append = "Please reference your WSDL or the describe call for the appropriate names.";
    let table: Vec<(&str, &str, String)> = vec![
        (
            "SELECT Id, Foo FROM Account",
            "INVALID_FIELD",
            place("SELECT Id, Foo FROM Account", 12)
                + &format!(
                    "No such column 'Foo' on entity 'Account'. If you are attempting to use a custom field, be sure to append the '__c' after the custom field name. {append}"
                ),
        ),
        (
            "select count() from XYZZY",
            "INVALID_TYPE",
            place("select count() from XYZZY", 21)
                + &format!(
                    "sObject type 'XYZZY' is not supported. If you are attempting to use a custom object, be sure to append the '__c' after the entity name. {append}"
                ),
        ),
        (
            "SELECT Id, Foo.Name FROM Account",
            "INVALID_FIELD",
            place("SELECT Id, Foo.Name FROM Account", 12)
                + &format!(
                    "Didn't understand relationship 'Foo' in field path. If you are attempting to use a custom relationship, be sure to append the '__r' after the custom relationship name. {append}"
                ),
        ),
        (
            "SELECT Id FROM Account WHERE Name",
            "MALFORMED_QUERY",
            "unexpected token: '<EOF>'".into(),
        ),
        (
            "SELECT Id, Id FROM Account",
            "MALFORMED_QUERY",
            "duplicate field selected: Id".into(),
        ),
        (
            "SELECT FIELDS(ALL) FROM Account",
            "MALFORMED_QUERY",
            "The SOQL FIELDS function must have a LIMIT of at most 200".into(),
        ),
        (
            "SELECT FIELDS(ALL) FROM Account LIMIT 201",
            "MALFORMED_QUERY",
            "The SOQL FIELDS function must have a LIMIT of at most 200".into(),
        ),
        (
            "SELECT Id FROM Account WHERE Id = 'x'",
            "INVALID_QUERY_FILTER_OPERATOR",
            place("SELECT Id FROM Account WHERE Id = 'x'", 30) + "invalid ID field: x",
        ),
        (
            "SELECT Id FROM Account WHERE Id LIKE '001%'",
            "INVALID_QUERY_FILTER_OPERATOR",
            place("SELECT Id FROM Account WHERE Id LIKE '001%'", 30)
                + "invalid operator on id field",
        ),
        (
            "SELECT Id FROM Account WHERE Name = 5",
            "INVALID_FIELD",
            place("SELECT Id FROM Account WHERE Name = 5", 30)
                + "value of filter criterion for field 'Name' must be of type string and should be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Case WHERE CreatedDate > '2026-01-01'",
            "INVALID_FIELD",
            place("SELECT Id FROM Case WHERE CreatedDate > '2026-01-01'", 27)
                + "value of filter criterion for field 'CreatedDate' must be of type dateTime and should not be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Lead WHERE Description = 'x'",
            "INVALID_FIELD",
            place("SELECT Id FROM Lead WHERE Description = 'x'", 27)
                + "field 'Description' can not be filtered in a query call",
        ),
        (
            "SELECT Id FROM Account OFFSET 2001",
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Maximum SOQL offset allowed is 2000".into(),
        ),
    ];
    for (soql, code, message) in table {
        let reply = sandbox.ask("query", soql).await;
        assert_eq!(reply.status, 400, "{soql}");
        assert_eq!(
            reply.json(),
            json!([{"message": message, "errorCode": code}]),
            "{soql}"
        );
    }
    assert_eq!(
        sandbox.get(&format!("{DATA}/query")).await.code(),
        "MALFORMED_QUERY"
    );
}

#[tokio::test]
async fn pages_hold_what_the_query_found() {
    let sandbox = Sandbox::start(&["--records", "3400", "--seed", "3"]);
    let soql = "SELECT Id, Name FROM Contact ORDER BY CreatedDate DESC, Id";
    let (all, pages) = sandbox.all(soql).await;
    let count = all.len();
    assert!(
        pages == 1 && (801..1_000).contains(&count),
        "{count} on {pages}"
    );

    let request = sandbox
        .request(Method::GET, &format!("{DATA}/query"))
        .query(&[("q", soql)])
        .header("Sforce-Query-Options", "batchSize=200");
    let mut page = sandbox.send(request).await.json();
    assert_eq!(
        keys(&page),
        ["totalSize", "done", "nextRecordsUrl", "records"]
    );
    assert_eq!(page["totalSize"], count);
    // Edits and deletes between the pages.
    let victim = all[500]["Id"].as_str().unwrap();
    let edited = all[501]["Id"].as_str().unwrap();
    sandbox
        .edit(json!({"object": "Contact", "id": victim, "delete": true}))
        .await;
    sandbox.edit(json!({"object": "Contact", "id": edited, "fields": {"LastName": "Edited", "FirstName": null}})).await;
    sandbox
        .edit(json!({"object": "Contact", "create": {"LastName": "New"}}))
        .await;
    let mut records = page["records"].as_array().unwrap().clone();
    let mut sizes = vec![records.len()];
    while let Some(next) = page["nextRecordsUrl"].as_str() {
        assert!(
            next.starts_with(&format!("{DATA}/query/0r8"))
                && next.ends_with(&format!("-{}", sizes.len() * 200))
        );
        let url = next.to_owned();
        page = sandbox
            .send(
                sandbox
                    .request(Method::GET, &url)
                    .header("Sforce-Query-Options", "batchSize=200"),
            )
            .await
            .json();
        assert_eq!(page["totalSize"], count);
        sizes.push(page["records"].as_array().unwrap().len());
        records.extend(page["records"].as_array().unwrap().iter().cloned());
    }
    assert_eq!(sizes, [200, 200, 199, 200, count - 800]);
    let expected: Vec<&Value> = all
        .iter()
        .map(|record| &record["Id"])
        .filter(|id| *id != victim)
        .collect();
    assert_eq!(
        records
            .iter()
            .map(|record| &record["Id"])
            .collect::<Vec<_>>(),
        expected
    );
    assert_eq!(records[500]["Name"], "Edited");

    let first = format!("{DATA}/query/0r8Dv0000000001IAA-200");
    for locator in [
        first.as_str(),
        "/services/data/v67.0/query/nonsense",
        "/services/data/v67.0/query/x-1",
    ] {
        let reply = sandbox.get(locator).await;
        assert_eq!(reply.status, 400);
        assert_eq!(
            reply.text,
            r#"[{"message":"invalid query locator","errorCode":"INVALID_QUERY_LOCATOR"}]"#
        );
    }
    let page = sandbox
        .send(
            sandbox
                .request(Method::GET, &format!("{DATA}/query"))
                .query(&[("q", soql)])
                .header("Sforce-Query-Options", "batchSize=1"),
        )
        .await
        .json();
    assert_eq!(
        page["records"].as_array().unwrap().len(),
        200,
        "fewer than 200 are not given"
    );
    let next = page["nextRecordsUrl"].as_str().unwrap();
    assert_eq!(sandbox.get(next).await.status, 200);
    assert_eq!(
        sandbox.get(next).await.status,
        200,
        "a page can be read again"
    );
    sandbox.delete("/_sandbox/cursors").await;
    assert_eq!(sandbox.get(next).await.code(), "INVALID_QUERY_LOCATOR");
}

#[tokio::test]
async fn walks_by_key_and_by_time_find_every_row_once() {
    let sandbox = Sandbox::start(&["--records", "6000", "--seed", "9"]);
    let mut expected: Vec<(String, String)> = sandbox
        .truth("Contact")
        .await
        .iter()
        .filter(|row| row["IsDeleted"] == false)
        .map(|row| {
            (
                row["SystemModstamp"].as_str().unwrap().to_owned(),
                row["Id"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let mut last = "000000000000000".to_owned();
    let mut by_key = Vec::new();
    loop {
        let ids = sandbox
            .column(
                &format!("SELECT Id FROM Contact WHERE Id > '{last}' ORDER BY Id LIMIT 300"),
                "Id",
            )
            .await;
        let Some(end) = ids.last() else { break };
        last = end.clone();
        by_key.extend(ids);
    }
    assert_eq!(
        by_key,
        expected.iter().map(|row| row.1.clone()).collect::<Vec<_>>()
    );

    expected.sort();
    let (all, _) = sandbox
        .all("SELECT Id, SystemModstamp FROM Contact ORDER BY SystemModstamp, Id")
        .await;
    let found: Vec<(String, String)> = all
        .iter()
        .map(|row| {
            (
                row["SystemModstamp"].as_str().unwrap().to_owned(),
                row["Id"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(found, expected);
    // A span of time: from inclusive, to exclusive, on a stamp many rows share.
    let shared = expected
        .windows(2)
        .find(|rows| rows[0].0 == rows[1].0)
        .unwrap()[0]
        .0
        .clone();
    for (condition, keep) in [
        (
            format!("SystemModstamp >= {shared}"),
            Box::new(|at: &str| at >= shared.as_str()) as Box<dyn Fn(&str) -> bool>,
        ),
        (
            format!("SystemModstamp > {shared}"),
            Box::new(|at: &str| at > shared.as_str()),
        ),
        (
            format!("SystemModstamp < {shared}"),
            Box::new(|at: &str| at < shared.as_str()),
        ),
        (
            format!("SystemModstamp = {shared}"),
            Box::new(|at: &str| at == shared.as_str()),
        ),
    ] {
        let condition = condition.replace("+0000", "Z");
        let wanted: Vec<String> = expected
            .iter()
            .filter(|row| keep(&row.0))
            .map(|row| row.1.clone())
            .collect();
        let ordered = sandbox
            .column(
                &format!(
                    "SELECT Id FROM Contact WHERE {condition} ORDER BY SystemModstamp ASC, Id ASC"
                ),
                "Id",
            )
            .await;
        assert_eq!(ordered, wanted, "{condition}");
        let mut loose = sandbox
            .column(
                &format!("SELECT Id FROM Contact WHERE {condition} ORDER BY SystemModstamp"),
                "Id",
            )
            .await;
        let (mut sorted, mut wanted) = (loose.clone(), wanted);
        sorted.sort();
        wanted.sort();
        assert_eq!(sorted, wanted, "{condition}");
        loose.dedup();
        assert_eq!(loose.len(), wanted.len());
    }
    // Without Id in the order, rows of one stamp come mixed.
    let loose = sandbox
        .column("SELECT Id FROM Contact ORDER BY SystemModstamp", "Id")
        .await;
    assert_ne!(
        loose,
        expected.iter().map(|row| row.1.clone()).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn pages_of_wide_rows_are_short() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let wide = "🦀".repeat(32_000);
    let records: Vec<Value> = (0..200)
        .map(|at| json!({"attributes": {"type": "Account"}, "Name": format!("{at:03}"), "Description": wide}))
        .collect();
    let made = sandbox
        .post(
            &format!("{DATA}/composite/sobjects"),
            &json!({"records": records}),
        )
        .await;
    assert_eq!(made.json()[199]["success"], true);
    let (all, pages) = sandbox
        .all("SELECT Name, Description FROM Account ORDER BY Id LIMIT 2000")
        .await;
    assert!(pages > 2, "{pages}");
    let names: Vec<String> = all
        .iter()
        .map(|row| row["Name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        (0..200).map(|at| format!("{at:03}")).collect::<Vec<_>>()
    );
    assert!(all.iter().all(|row| row["Description"] == wide));
}

#[tokio::test]
async fn addresses_have_a_longest_length() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let ids = |count: usize| vec!["'001dM00003jU9GxQAK'"; count].join(",");
    let ask = async |count: usize| {
        sandbox
            .ask(
                "query",
                &format!("SELECT Id FROM Account WHERE Id IN ({})", ids(count)),
            )
            .await
            .status
            .as_u16()
    };
    assert_eq!((ask(500).await, ask(1_000).await), (200, 414));
}
