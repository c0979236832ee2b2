//! What parsers say of a value, in words for people: a parser names the types of the program.

/// The sentence of `message`, which serde has made of a value. `field` is the name of the field that has the value, if that is known.
/// Any other message stays as it is.
#[must_use]
pub(crate) fn plain(message: &str, field: Option<&str>) -> String {
    let of_field = |said: String| field.map_or(said.clone(), |field| format!("'{field}': {said}"));
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(", ");
    let named = |kind: &str| {
        let (name, rest) = message.strip_prefix(kind)?.strip_prefix('`')?.split_once('`')?;
        Some((name, rest.strip_prefix(", expected ")))
    };
    let mistaken = ["invalid type: ", "invalid value: "].iter().find_map(|kind| message.strip_prefix(kind));
    if let Some((has, wants)) = mistaken.and_then(|rest| rest.rsplit_once(", expected ")) {
        return of_field(format!("{} is not {}", value(has), wanted(wants)));
    }
    if let Some((name, Some(others))) = named("unknown variant ") {
        return of_field(format!("'{name}' is none of {}", quoted(others)));
    }
    if let Some((name, others)) = named("unknown field ") {
        let others = others.map_or(String::new(), |others| format!("; there are {}", quoted(others)));
        return format!("there is no field '{name}'{others}");
    }
    if let Some((name, None)) = named("missing field ") {
        return format!("it needs the field '{name}'");
    }
    if let Some((name, None)) = named("duplicate field ") {
        return format!("the field '{name}' is there twice, or the path has it already");
    }
    message.to_owned()
}

/// A value as a parser names it.
fn value(has: &str) -> String {
    if let Some(text) = has.strip_prefix("string ") {
        return format!("the text {text}");
    }
    let quoted = has.split_once('`').and_then(|(_, rest)| rest.strip_suffix('`'));
    match (quoted, has) {
        (Some(value), _) => value.to_owned(),
        (None, "sequence") => "a list".to_owned(),
        (None, "map") => "a table".to_owned(),
        (None, other) => other.to_owned(),
    }
}

/// What a parser expects.
fn wanted(wants: &str) -> String {
    let most = match wants {
        "u8" => u8::MAX.into(),
        "u16" => u16::MAX.into(),
        "u32" => u32::MAX.into(),
        "u64" | "usize" => u64::MAX,
        "a string" => return "a text".to_owned(),
        "a boolean" => return "true or false".to_owned(),
        "a sequence" => return "a list".to_owned(),
        other if other == "a map" || other.starts_with("struct ") => return "a table".to_owned(),
        other => return other.to_owned(),
    };
    format!("a whole number from 0 to {most}")
}

/// What is wrong with the `body` of a request.
pub(super) fn of_json(body: &[u8], error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let Some(message) = whole.strip_suffix(&place).filter(|_| error.is_data()) else { return whole };
    plain(message, field_before(body, error.line(), error.column()).as_deref())
}

/// The field whose value ends at a place of `body`.
fn field_before(body: &[u8], line: usize, column: usize) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let before = text.get(start..)?.get(..column)?;
    let (key, _) = text[..start + before.len()].rsplit_once(':')?;
    let name = key.trim_end().strip_suffix('"')?.rsplit('"').next()?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_is_told_in_words_for_people() {
        for (message, field, said) in [
            (
                "invalid value: integer `99999`, expected u16",
                Some("relative_id"),
                "'relative_id': 99999 is not a whole number from 0 to 65535",
            ),
            (
                "invalid type: string \"x, expected y\", expected u64",
                None,
                "the text \"x, expected y\" is not a whole number from 0 to 18446744073709551615",
            ),
            ("invalid type: boolean `true`, expected a string", None, "true is not a text"),
            ("invalid type: sequence, expected a boolean", None, "a list is not true or false"),
            (
                "unknown variant `ludicrous`, expected one of `slow`, `medium`, `fast`, `none`, `automatic`",
                Some("pace"),
                "'pace': 'ludicrous' is none of slow, medium, fast, none, automatic",
            ),
            (
                "unknown field `sise`, expected `name` or `size`",
                None,
                "there is no field 'sise'; there are name, size",
            ),
            ("unknown field `x`, there are no fields", None, "there is no field 'x'"),
            ("missing field `name`", None, "it needs the field 'name'"),
            ("key with no value, expected `=`", None, "key with no value, expected `=`"),
        ] {
            assert_eq!(plain(message, field), said);
        }
    }
}
