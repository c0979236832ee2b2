//! The admin API as OpenAPI 3.1 has it: made from the [operations](Operation) of its router and from the types of requests and
//! answers, so that the description says what the program does. docs/openapi.json is the same text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::http::Method;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::api::Api;
use super::lasting::OperationDocument;
use super::routes::{Conditions, Content, Operation, Routes};
use super::types::ErrorDocument;
use super::{api, applying, contents, extents, history, operations};
use crate::catalog::labels::{Description, LabelKey, LabelValue, Labels};
use crate::catalog::names::{Barcode, ImageName, IscsiName, Name, ObjectName};
use crate::catalog::{SecretDigest, Seed};
use crate::operator::Verb;
use crate::operator::desired::Bytes;
use crate::units::BlockSize;

/// Types whose JSON is one value, with what is known of that value.
macro_rules! values {
    ($($type:ty: $name:literal, $schema:tt;)*) => {
        $(
            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    $name.into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )*
    };
}

values! {
    Name: "Name", { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" };
    ImageName: "ImageName", { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}@[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" };
    ObjectName: "ObjectName", { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$" };
    IscsiName: "IscsiName", { "type": "string", "maxLength": 223 };
    Barcode: "Barcode", { "type": "string", "pattern": "^[A-Z0-9]{1,32}$" };
    BlockSize: "BlockSize", { "type": "integer", "enum": [512, 4096] };
    SecretDigest: "Sha256", { "type": "string", "pattern": "^[0-9a-fA-F]{64}$" };
    Seed: "Identity", { "type": "string", "pattern": "^[0-9a-fA-F]{32}$" };
    Bytes: "Bytes", { "type": ["integer", "string"], "minimum": 0, "description": "Bytes, or a text as in 10GiB" };
    LabelKey: "LabelKey", { "type": "string", "pattern": "^[a-z0-9]([a-z0-9./-]{0,61}[a-z0-9])?$" };
    LabelValue: "LabelValue", { "type": "string", "maxLength": 255 };
    Description: "Description", { "type": "string", "maxLength": 1024 };
    Labels: "Labels", { "type": "object", "maxProperties": 32, "additionalProperties": { "type": "string", "maxLength": 255 } };
}

/// The routes of the API, but for the journal's.
pub(super) fn routes() -> Routes<Arc<Api>> {
    let api = api::routes().and(applying::routes()).and(contents::routes());
    api.and(extents::routes()).and(operations::routes())
}

/// The description, as JSON.
pub(super) fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&described().0).expect("a document has texts for keys");
        text.push('\n');
        text
    })
}

/// The description of all operations, and the schemas whose name stands for two: a test sees that there are none.
fn described() -> (Value, Vec<String>) {
    let operations = routes().operations().into_iter().chain(history::routes().operations());
    describe(operations)
}

/// A generator whose types stand in the description's components.
fn generator(settings: SchemaSettings) -> SchemaGenerator {
    let settings = settings.with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

/// What the operations take and answer.
struct Describer {
    /// Of what a request says.
    asked: SchemaGenerator,
    /// Of what is answered.
    answered: SchemaGenerator,
    /// The schemas of each verb and of its answer.
    verbs: BTreeMap<&'static str, [Schema; 2]>,
    /// What every refusal is.
    refusal: Schema,
}

fn describe(operations: impl Iterator<Item = Operation>) -> (Value, Vec<String>) {
    let mut asked = generator(SchemaSettings::draft2020_12().for_deserialize());
    let mut answered = generator(SchemaSettings::draft2020_12().for_serialize());
    let verbs = Verb::schemas(&mut asked, &mut answered);
    let refusal = answered.subschema_for::<ErrorDocument>();
    let mut describer = Describer { asked, answered, verbs, refusal };
    let mut paths = Map::new();
    for operation in operations {
        let described = describer.operation(&operation);
        let path = paths.entry(operation.path.clone()).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    let Describer { mut asked, mut answered, .. } = describer;
    let (mut schemas, mut clashes) = (asked.take_definitions(true), Vec::new());
    for (name, schema) in answered.take_definitions(true) {
        let other = schemas.insert(name.clone(), schema.clone());
        if other.is_some_and(|other| other != schema) {
            clashes.push(name);
        }
    }
    let whole = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cleave",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The admin API of a cleave array; docs/ADMIN-API.md says what it means. Over TCP a request needs a \
                token of the role that the operation names (x-role).",
        },
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    });
    (whole, clashes)
}

impl Describer {
    fn operation(&mut self, operation: &Operation) -> Value {
        let json = |schema: &Value| json!({ "application/json": { "schema": schema } });
        let mut done = json!({ "description": "It is done.", "content": self.answer(operation) });
        if operation.is_tagged {
            let says = "The revision of the object, or of the catalog for a list; what only runs does not change it. A deletion \
                has none.";
            done["headers"] = json!({ "ETag": { "description": says, "schema": { "type": "string" } } });
        }
        let refusal = json!({ "description": "It is not done.", "content": json(self.refusal.as_value()) });
        let mut described = json!({
            "operationId": operation.id,
            "summary": operation.says,
            "x-role": operation.role.word(),
            "responses": { "200": done, "default": refusal },
        });
        if operation.makes {
            described["responses"]["201"] = described["responses"]["200"].clone();
            described["responses"]["201"]["description"] = "An object is made.".into();
            if matches!(operation.body, Some(Content::Json(_) | Content::Verb(_))) {
                let there = "The object is there, and is as it is asked for.";
                described["responses"]["200"]["description"] = there.into();
            }
        }
        if operation.lasts {
            let schema = self.answered.subschema_for::<OperationDocument>().to_value();
            let location =
                json!({ "description": "The path of the operation.", "schema": { "type": "string" } });
            described["responses"]["202"] = json!({
                "description": "It has begun, and goes on as this operation: the client does not wait.",
                "headers": { "Location": location },
                "content": json(&schema),
            });
        }
        let mut parameters: Vec<Value> = operation.names().map(named).collect();
        parameters.extend(self.query(operation));
        parameters.extend(conditions(operation.conditions));
        parameters.extend(operation.lasts.then(preference));
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if let Some((is_required, content)) = self.body(operation) {
            described["requestBody"] = json!({ "required": is_required, "content": content });
        }
        described
    }

    fn answer(&mut self, operation: &Operation) -> Value {
        let schema = match operation.answer {
            Content::Json(describe) => describe(&mut self.answered).to_value(),
            Content::Verb(name) => self.verbs[name][1].as_value().clone(),
            Content::AnyVerb => json!({ "type": "object" }),
            Content::Bytes(kind) => return json!({ kind: {} }),
        };
        let mut content = json!({ "application/json": { "schema": schema } });
        if let Some(kind) = operation.stream {
            content[kind] = json!({ "schema": { "type": "string" } });
        }
        content
    }

    /// The content of a request's body, if it has one, and whether it must be there.
    fn body(&mut self, operation: &Operation) -> Option<(bool, Value)> {
        let mut schema = match operation.body? {
            Content::Json(describe) => describe(&mut self.asked).to_value(),
            Content::Verb(name) => self.verbs[name][0].as_value().clone(),
            Content::AnyVerb => {
                let whole: Vec<Value> =
                    self.verbs.iter().map(|(name, [verb, _])| whole(name, verb)).collect();
                json!({ "oneOf": whole })
            }
            Content::Bytes(kind) => return Some((true, json!({ kind: {} }))),
        };
        for name in operation.names() {
            // The path has it, and the body has not.
            if let Some(properties) = schema["properties"].as_object_mut() {
                properties.remove(name);
            }
            if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|other| other != name);
            }
        }
        let is_empty = schema["properties"].as_object().is_some_and(Map::is_empty);
        let is_required = schema["required"].as_array().is_none_or(|required| !required.is_empty());
        let is_required = is_required && operation.method != Method::DELETE;
        (!is_empty).then(|| (is_required, json!({ "application/json": { "schema": schema } })))
    }

    fn query(&mut self, operation: &Operation) -> Vec<Value> {
        let Some(describe) = operation.query else { return Vec::new() };
        let schema = describe(&mut self.asked).to_value();
        let required =
            |name: &String| schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
        let fields = schema["properties"].as_object().into_iter().flatten();
        let parameter = |(name, schema): (&String, &Value)| json!({ "name": name, "in": "query", "required": required(name), "schema": schema });
        fields.map(parameter).collect()
    }
}

/// A parameter of a path.
fn named(name: &str) -> Value {
    let kind = if ["id", "lun"].contains(&name) { "integer" } else { "string" };
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
}

/// A field of a request's head.
fn field(name: &str, says: &str) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": says, "schema": { "type": "string" } })
}

fn preference() -> Value {
    field("Prefer", "'respond-async': a verb that lasts is answered at once, by status 202.")
}

fn conditions(conditions: Conditions) -> Vec<Value> {
    let matches = field(
        "If-Match",
        "Only if the object has this entity tag, else status 412. Of what makes an object by POST: the list's; of a file: the array's, as the answer to a dry run has it.",
    );
    let none = field("If-None-Match", "'*': only if the object is not there, else status 412.");
    match conditions {
        Conditions::No => Vec::new(),
        Conditions::Match => vec![matches],
        Conditions::MatchOrNew => vec![matches, none],
    }
}

/// A verb with its name in it.
fn whole(name: &str, verb: &Schema) -> Value {
    let mut whole = verb.as_value().clone();
    whole["properties"]["verb"] = json!({ "const": name });
    let mut required = vec![json!("verb")];
    required.extend(whole["required"].as_array().cloned().unwrap_or_default());
    whole["required"] = required.into();
    whole
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parsed() -> Value {
        serde_json::from_str(document()).unwrap()
    }

    /// `CLEAVE_OPENAPI=write` before the test's command writes the file anew.
    #[test]
    fn the_file_in_the_documentation_is_what_the_daemon_says() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        if std::env::var("CLEAVE_OPENAPI").is_ok_and(|wish| wish == "write") {
            std::fs::write(&file, document()).unwrap();
        }
        let is_same = std::fs::read_to_string(&file).is_ok_and(|text| text == document());
        assert!(
            is_same,
            "{} is not what the types say: write it anew by CLEAVE_OPENAPI=write",
            file.display()
        );
    }

    #[test]
    fn every_verb_and_its_fields_are_described() {
        let document = parsed();
        let resize = &document["paths"]["/v1/volumes/{name}/resize"]["post"];
        assert_eq!(resize["x-role"], "operator");
        let body = &resize["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["size"]));
        assert!(body["properties"]["shrink"].is_object() && body["properties"].get("name").is_none());
        assert_eq!(body["additionalProperties"], json!(false));
        let delete = &document["paths"]["/v1/volumes/{name}"]["delete"];
        assert!(delete["requestBody"].is_null() && delete["x-role"] == "admin");
        for (name, meta) in Verb::ALL {
            let Operation { method, path, .. } = Operation::verb(name, meta);
            let operation = &document["paths"][&path][method.as_str().to_ascii_lowercase()];
            assert_eq!(operation["x-role"], meta.role.word(), "{name}");
        }
        let whole =
            &document["paths"]["/v1/verbs"]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(whole["oneOf"].as_array().unwrap().len(), Verb::ALL.len());
        let volume = &document["components"]["schemas"]["Volume"];
        assert!(volume["required"].as_array().unwrap().contains(&json!("luns")), "{volume}");
        let put = &document["paths"]["/v1/volumes/{name}"]["put"];
        assert!(
            put["responses"]["201"].is_object() && put["responses"]["200"]["headers"]["ETag"].is_object()
        );
    }

    #[test]
    fn every_operation_has_an_identifier_of_its_own() {
        let document = parsed();
        let mut all = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let id =
                    operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has none"));
                let is_camel_case = id.starts_with(|c: char| c.is_ascii_lowercase())
                    && id.chars().all(|c| c.is_ascii_alphabetic());
                assert!(is_camel_case, "{id}");
                let other = all.insert(id.to_owned(), format!("{method} {path}"));
                assert_eq!(other, None, "{id} is {method} {path}, too");
            }
        }
        // Programs call these by their names.
        for (id, operation) in [
            ("getVolumes", "get /v1/volumes"),
            ("getVolume", "get /v1/volumes/{name}"),
            ("createVolume", "post /v1/volumes"),
            ("putVolume", "put /v1/volumes/{name}"),
            ("deleteVolume", "delete /v1/volumes/{name}"),
            ("resizeVolume", "post /v1/volumes/{name}/resize"),
            ("getVolumeContents", "get /v1/volumes/{name}/contents"),
            ("putVolumeContents", "put /v1/volumes/{name}/contents"),
            ("getCopy", "get /v1/copies/{id}"),
            ("getStatus", "get /v1/status"),
            ("mapLun", "post /v1/luns"),
            ("unmapLun", "post /v1/luns/unmap"),
            ("deleteLun", "delete /v1/luns/{target}/{lun}"),
            ("splitPair", "post /v1/pairs/{name}/split"),
            ("resyncPair", "post /v1/pairs/{name}/resync"),
            ("waitForPair", "get /v1/pairs/{name}/wait"),
            ("waitForOperation", "get /v1/operations/{id}/wait"),
            ("applyFile", "post /v1/apply"),
            ("exportArray", "get /v1/export"),
            ("doVerb", "post /v1/verbs"),
            ("getAudit", "get /v1/audit"),
        ] {
            assert_eq!(all.get(id).map(String::as_str), Some(operation), "{id}");
        }
    }

    #[test]
    fn a_verb_that_lasts_may_be_answered_by_its_operation() {
        let document = parsed();
        let import = &document["paths"]["/v1/cartridges/{barcode}/import"]["post"];
        let begun = &import["responses"]["202"]["content"]["application/json"]["schema"];
        assert_eq!(begun["$ref"], "#/components/schemas/Operation");
        assert!(import["parameters"].as_array().unwrap().contains(&preference()));
        assert!(document["paths"]["/v1/volumes"]["post"]["responses"]["202"].is_null());
        assert_eq!(document["paths"]["/v1/apply"]["post"]["responses"]["202"], import["responses"]["202"]);
        let verb = Verb::read("cartridge.import", Some("TAPE01L8"), br#"{"file": "/a"}"#).unwrap();
        assert!(verb.lasting().is_some() && Verb::lasts("cartridge.import"));
    }

    /// A name in the components stands for one schema, whether it is said or answered.
    #[test]
    fn no_schema_is_said_and_answered_in_two_ways() {
        assert_eq!(described().1, Vec::<String>::new());
    }

    /// What is referred to is there.
    #[test]
    fn no_reference_leads_nowhere() {
        let document = parsed();
        let (mut next, mut seen) = (vec![&document], 0);
        while let Some(value) = next.pop() {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
                seen += 1;
            }
            match value {
                Value::Object(map) => next.extend(map.values()),
                Value::Array(list) => next.extend(list),
                _ => {}
            }
        }
        assert!(seen > 30, "{seen}");
    }
}
