//! `GET /v1/openapi.json`: what it says of each answer is so, and it has what the router has.

use serde_json::{Value, json};

use crate::daemon::{DEMO, Daemon};
use crate::http::ask;

/// What of `value` is not as `schema` says; nothing if all of it is. The words are those that the description uses, and
/// another one is an error.
fn faults(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let Some(words) = schema.as_object() else {
        return if schema == &json!(true) {
            Vec::new()
        } else {
            vec![format!("{at}: {schema} is no schema")]
        };
    };
    let mut found = Vec::new();
    for (word, says) in words {
        let alternatives = || says.as_array().into_iter().flatten();
        let is_so = match word.as_str() {
            "title"
            | "description"
            | "default"
            | "format"
            | "required"
            | "additionalProperties"
            | "uniqueItems" => true,
            "$ref" => {
                let there = document.pointer(&says.as_str().expect("a reference")[1..]).expect("it is there");
                found.extend(faults(document, there, value, at));
                true
            }
            "type" => match says {
                Value::String(kind) => is_a(value, kind),
                kinds => kinds
                    .as_array()
                    .is_some_and(|kinds| kinds.iter().any(|kind| is_a(value, kind.as_str().unwrap_or("")))),
            },
            "enum" => alternatives().any(|one| one == value),
            "const" => says == value,
            "minimum" => value.as_f64().is_none_or(|value| value >= says.as_f64().expect("a number")),
            "maximum" => value.as_f64().is_none_or(|value| value <= says.as_f64().expect("a number")),
            "maxLength" => {
                value.as_str().is_none_or(|text| text.len() as u64 <= says.as_u64().expect("a number"))
            }
            "maxProperties" => {
                value.as_object().is_none_or(|map| map.len() as u64 <= says.as_u64().expect("a number"))
            }
            "pattern" => value.is_string(),
            "anyOf" | "oneOf" => alternatives().any(|one| faults(document, one, value, at).is_empty()),
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                found.extend(
                    items.flat_map(|(index, item)| faults(document, says, item, &format!("{at}[{index}]"))),
                );
                true
            }
            "properties" => true,
            _ => false,
        };
        if !is_so {
            found.push(format!("{at}: {value} against {word} {says}"));
        }
    }
    if words.get("type") == Some(&json!("object")) || words.contains_key("properties") {
        found.extend(unlike_fields(document, schema, value, at));
    }
    found
}

/// What of the fields of `value` is not as `schema` says: each is described, by its name or all alike, and none is missing.
fn unlike_fields(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let others = schema.get("additionalProperties").filter(|others| others.is_object());
    for (name, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name).or(others) {
            Some(schema) => found.extend(faults(document, schema, value, &format!("{at}.{name}"))),
            None => found.push(format!("{at}.{name} is not described")),
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    found.extend(
        required.filter(|name| value.get(name).is_none()).map(|name| format!("{at}.{name} is missing")),
    );
    found
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// The schema of what an operation answers with this status.
fn answer<'a>(document: &'a Value, path: &str, method: &str, status: u16) -> &'a Value {
    let responses = &document["paths"][path][method]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let schema = &response["content"]["application/json"]["schema"];
    assert!(!schema.is_null(), "{method} {path} is not described");
    schema
}

/// Asks, and holds the answer to what is said of it.
fn check(
    daemon: &Daemon,
    document: &Value,
    (method, path): (&str, &str),
    asked: &str,
    body: &str,
    status: u16,
) {
    let answered = ask(daemon, &method.to_ascii_uppercase(), asked, body);
    assert_eq!(answered.status, status, "{method} {asked}: {answered:?}");
    let found = faults(document, answer(document, path, method, status), &answered.document, "");
    assert!(found.is_empty(), "{method} {asked}: {found:#?}\n{}", answered.document);
}

#[test]
fn every_answer_is_as_it_is_described() {
    let daemon = Daemon::fresh(&["--demo"]);
    let document = ask(&daemon, "GET", "/v1/openapi.json", "").document;
    assert_eq!(document["openapi"], "3.1.0");
    let check = |what: (&str, &str), asked: &str, body: &str, status| {
        check(&daemon, &document, what, asked, body, status);
    };
    let token = json!({
        "name": "ci", "role": "viewer", "sha256": "0".repeat(64), "expires_at": "2099-01-01T00:00:00Z"
    });
    let (map, pair) = (
        json!({ "object": "a", "target": DEMO, "lun": 9 }),
        json!({
            "primary": "a", "secondary": "b", "name": "p", "defer": true, "labels": { "env": "test" }
        }),
    );
    let other = "iqn.2026-01.a:other";
    let (target, lun) = (format!("/v1/targets/{other}"), format!("/v1/luns/{DEMO}/10"));
    let annotate = json!({ "kind": "volume", "name": "a", "set": { "tier": "gold" }, "description": "x" });
    let apply = json!({ "file": "[[volume]]\nname = \"c\"\nsize = \"1MiB\"\n" });
    let wrong = json!({ "file": "[[volume]]\nname = \"c\"\nblock_size = 4096\n" });
    let a = r#"{"name": "a", "size": 1048576}"#;
    for (method, path, asked, body, status) in [
        ("post", "/v1/volumes", "/v1/volumes", a, 201),
        ("post", "/v1/volumes", "/v1/volumes", a, 200),
        ("put", "/v1/volumes/{name}", "/v1/volumes/b", r#"{"size": "1MiB", "labels": {"env": "test"}}"#, 201),
        ("put", "/v1/volumes/{name}", "/v1/volumes/b", r#"{"description": "x"}"#, 200),
        ("put", "/v1/volumes/{name}", "/v1/volumes/b", r#"{"block_size": 4096}"#, 409),
        ("post", "/v1/snapshots", "/v1/snapshots", r#"{"name": "a@noon", "protect": true}"#, 201),
        ("post", "/v1/snapshots", "/v1/snapshots", r#"{"name": "a@noon"}"#, 409),
        ("delete", "/v1/snapshots/{name}", "/v1/snapshots/a@noon", "", 409),
        ("post", "/v1/snapshots/{name}/protect", "/v1/snapshots/a@noon/protect", r#"{"off": true}"#, 200),
        ("post", "/v1/volumes/{name}/restore", "/v1/volumes/a/restore", r#"{"snapshot": "noon"}"#, 200),
        ("post", "/v1/volumes/{name}/pace", "/v1/volumes/b/pace", r#"{"pace": "fast"}"#, 409),
        ("post", "/v1/volumes/{name}/abandon", "/v1/volumes/b/abandon", "", 409),
        ("post", "/v1/volumes/{name}/limit", "/v1/volumes/a/limit", r#"{"snapshot_limit": 1048576}"#, 200),
        ("post", "/v1/pairs", "/v1/pairs", &pair.to_string(), 201),
        ("put", "/v1/pairs/{name}", "/v1/pairs/p", r#"{"primary": "a", "secondary": "b"}"#, 200),
        ("post", "/v1/luns", "/v1/luns", &map.to_string(), 201),
        ("put", "/v1/luns/{target}/{lun}", &lun, r#"{"object": "b", "read_only": true}"#, 201),
        ("get", "/v1/luns/{target}/{lun}", &lun, "", 200),
        ("delete", "/v1/luns/{target}/{lun}", &lun, "", 200),
        ("delete", "/v1/luns/{target}/{lun}", &lun, "", 404),
        ("put", "/v1/targets/{iqn}", &target, "{}", 201),
        ("delete", "/v1/targets/{iqn}", &target, "", 200),
        ("put", "/v1/cartridges/{barcode}", "/v1/cartridges/A00001L8", r#"{"size": "1MiB"}"#, 201),
        ("put", "/v1/drives/{name}", "/v1/drives/tape1", r#"{"loaded": "A00001L8"}"#, 201),
        ("post", "/v1/tokens", "/v1/tokens", &token.to_string(), 201),
        ("post", "/v1/objects/annotate", "/v1/objects/annotate", &annotate.to_string(), 200),
        ("post", "/v1/pairs/{name}/split", "/v1/pairs/demo/split", "", 200),
        ("post", "/v1/pairs/{name}/resync", "/v1/pairs/demo/resync", r#"{"restore": false}"#, 200),
        ("post", "/v1/drives/{name}/unload", "/v1/drives/tape0/unload", "", 200),
        ("post", "/v1/apply", "/v1/apply", &apply.to_string(), 200),
        ("post", "/v1/apply", "/v1/apply", &wrong.to_string(), 409),
        ("post", "/v1/verbs", "/v1/verbs", r#"{"verb": "volume.delete", "name": "none"}"#, 404),
        ("post", "/v1/volumes", "/v1/volumes", r#"{"name": "a", "size": 2097152}"#, 409),
        ("post", "/v1/volumes", "/v1/volumes", "x", 400),
        ("delete", "/v1/volumes/{name}", "/v1/volumes/a", "", 409),
        ("delete", "/v1/volumes/{name}", "/v1/volumes/none", "", 404),
        ("get", "/v1/pairs/{name}/wait", "/v1/pairs/p/wait?state=smpl&timeout_ms=0", "", 200),
    ] {
        check((method, path), asked, body, status);
    }
    look_at_all(&daemon, &document);
    check(("delete", "/v1/tokens/{name}"), "/v1/tokens/ci", "", 200);
    let body = json!({ "target": DEMO, "lun": 9 }).to_string();
    check(("post", "/v1/luns/unmap"), "/v1/luns/unmap", &body, 200);
}

/// All that can be looked at without a name, and one of each that has one.
fn look_at_all(daemon: &Daemon, document: &Value) {
    let paths = document["paths"].as_object().expect("paths");
    let looks = paths.iter().filter(|(_, path)| path.get("get").is_some()).map(|(path, _)| path);
    // The contents are no JSON, and what is waited for has a query.
    let looks = looks.filter(|path| !path.ends_with("/contents") && !path.ends_with("/wait"));
    let lun = format!("/v1/luns/{DEMO}/0");
    let target = format!("/v1/targets/{DEMO}");
    let named = [
        ("/v1/volumes/{name}", "/v1/volumes/primary"),
        ("/v1/volumes/{name}/extents", "/v1/volumes/primary/extents"),
        ("/v1/pairs/{name}", "/v1/pairs/demo"),
        ("/v1/snapshots/{name}", "/v1/snapshots/a@noon"),
        ("/v1/cartridges/{barcode}", "/v1/cartridges/DEMO01L8"),
        ("/v1/drives/{name}", "/v1/drives/tape0"),
        ("/v1/targets/{iqn}", &target),
        ("/v1/tokens/{name}", "/v1/tokens/ci"),
        ("/v1/luns/{target}/{lun}", &lun),
    ];
    let mut looked = 0;
    for path in looks {
        let one = named.iter().find(|(other, _)| other == path).map(|(_, one)| *one);
        match one {
            Some(one) => check(daemon, document, ("get", path), one, "", 200),
            None if path.contains('{') => {
                let nobody = path.split('{').next().expect("a path").to_owned() + "7";
                check(daemon, document, ("get", path), &nobody, "", 404);
            }
            None => check(daemon, document, ("get", path), path, "", 200),
        }
        looked += 1;
    }
    assert!(looked >= 23, "{looked}");
}

/// A method that a path does not take is refused as such, and so is a path that is not there. Every route of the router is
/// described, for it is made of the description.
#[test]
fn the_router_takes_what_is_described_and_nothing_else() {
    let daemon = Daemon::fresh(&[]);
    let document = ask(&daemon, "GET", "/v1/openapi.json", "").document;
    let paths = document["paths"].as_object().expect("paths");
    let (mut taken, mut refused) = (0, 0);
    for (path, described) in paths {
        let asked: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "7" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for method in ["get", "post", "put", "delete", "patch"] {
            if (method, path.as_str()) == ("get", "/v1/openapi.json") {
                continue;
            }
            let answered = ask(&daemon, &method.to_ascii_uppercase(), &asked, "");
            let why = answered.document["error"]["why"].as_str().unwrap_or_default();
            let is_taken = !["there is no such path", "that path does not take this method"].contains(&why);
            assert_eq!(is_taken, described.get(method).is_some(), "{method} {asked}: {answered:?}");
            if !is_taken {
                let allow = answered.head.lines().find_map(|line| line.strip_prefix("allow: "));
                let allowed: Vec<String> =
                    allow.unwrap_or_default().split(',').map(str::to_ascii_lowercase).collect();
                let takes = |method: &str| allowed.iter().any(|one| one == method);
                let is_so =
                    described.as_object().is_some_and(|described| described.keys().all(|it| takes(it)));
                assert!(answered.status == 405 && is_so, "{method} {asked}: {answered:?}");
            }
            *(if is_taken { &mut taken } else { &mut refused }) += 1;
        }
    }
    assert!(taken > 55 && refused > 60, "{taken} {refused}");
}

#[test]
fn a_document_that_is_not_as_described_is_found() {
    let schema = json!({
        "type": "object", "properties": { "a": { "type": ["integer", "null"], "maximum": 3 } }, "required": ["a"]
    });
    let found = |value| faults(&Value::Null, &schema, &value, "").len();
    assert_eq!((found(json!({ "a": 1 })), found(json!({ "a": null }))), (0, 0));
    for wrong in [json!({}), json!({ "a": "1" }), json!({ "a": 4 }), json!({ "a": 1, "b": 1 }), json!(1)] {
        assert_ne!(found(wrong.clone()), 0, "{wrong}");
    }
    assert_ne!(faults(&Value::Null, &json!({ "unknown": 1 }), &json!(1), "").len(), 0);
}
