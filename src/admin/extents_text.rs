//! `volume extents`: the list is printed as it comes, and nothing keeps the whole of it.

use std::fmt;
use std::io::{self, BufReader, BufWriter, Read, Write};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::extents::asked;
use super::http::Daemon;
use super::types::{ErrorBody, ErrorDocument};
use super::{output, stdout};
use crate::array::error::{ArrayError, Kind};
use crate::array::show::{Extent, Extents};
use crate::catalog::names::{Name, ObjectName};
use crate::printable;
use crate::units::Size;

/// Prints the used extents of a volume or snapshot, or those that have changed since a snapshot: one JSON document, or a table
/// and their sum.
pub(super) fn list(
    daemon: &Daemon,
    json: bool,
    name: &ObjectName,
    since: Option<&Name>,
) -> Result<(), ArrayError> {
    let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
    daemon.take_stream(&format!("/v1/volumes/{name}/extents{query}"), |chunks| {
        let out = BufWriter::new(stdout::open().map_err(|error| output::unprinted(&error))?);
        let mut printer = Printer { out, json, word: "used", size: 0, width: 0, runs: 0, bytes: 0 };
        let ended = read(BufReader::new(chunks), &mut |part| printer.print(part));
        // What has come is printed, whatever has ended it.
        let printed = printer.out.flush().map_err(Ended::Unprinted);
        match ended.and(printed) {
            Ok(()) => Ok(()),
            Err(Ended::Unprinted(error)) => {
                stdout::unless_gone(Err(error)).map_err(|error| output::unprinted(&error))
            }
            Err(Ended::Refused(document)) => Err(ArrayError::from(*document)),
            Err(Ended::Broken(why)) => {
                let asked = asked(name, since);
                let why = format!("the list broke off before its end ({why})");
                Err(ArrayError::new(Kind::Failed, asked, why, "look at the daemon's log, and repeat"))
            }
        }
    })
}

/// A part of a list.
enum Part {
    /// The volume, without extents: the first part.
    Head(Extents),
    /// An extent.
    Extent(Extent),
    /// There are no more.
    End,
}

/// Prints a list, part by part.
struct Printer<W> {
    out: W,
    json: bool,
    /// What the extents are.
    word: &'static str,
    /// The size of the volume.
    size: u64,
    /// The width of the column of offsets.
    width: usize,
    /// The extents that have been printed, and their sum.
    runs: u64,
    bytes: u64,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, part: Part) -> io::Result<()> {
        match part {
            Part::Head(head) => {
                self.size = head.size;
                self.word = if head.since.is_some() { "changed" } else { "used" };
                self.width = head.size.to_string().len().max("OFFSET".len());
                if self.json {
                    let text = serde_json::to_string_pretty(&head)?;
                    let text = printable::json(&text);
                    self.out.write_all(text.strip_suffix("]\n}").unwrap_or(&text).as_bytes())?;
                }
                Ok(())
            }
            Part::Extent(Extent { offset, length, .. }) => {
                let (is_first, width) = (self.runs == 0, self.width);
                (self.runs, self.bytes) = (self.runs + 1, self.bytes.saturating_add(length));
                match (self.json, is_first) {
                    (true, true) => self.out.write_all(b"\n    ")?,
                    (true, false) => self.out.write_all(b",\n    ")?,
                    (false, true) => writeln!(self.out, "{:<width$}  LENGTH", "OFFSET")?,
                    (false, false) => {}
                }
                match self.json {
                    true => write!(self.out, "{{ \"offset\": {offset}, \"length\": {length} }}"),
                    false => writeln!(self.out, "{offset:<width$}  {length}"),
                }
            }
            Part::End => {
                let (sum, all) = (Size(self.bytes), Size(self.size));
                match (self.json, self.runs) {
                    (true, 0) => writeln!(self.out, "]\n}}"),
                    (true, _) => writeln!(self.out, "\n  ]\n}}"),
                    (false, 0) => writeln!(self.out, "no {} extents", self.word),
                    (false, 1) => writeln!(self.out, "{sum} of {all} in 1 run"),
                    (false, runs) => writeln!(self.out, "{sum} of {all} in {runs} runs"),
                }
            }
        }
    }
}

/// Why a list was not read to its end.
#[derive(Debug)]
enum Ended {
    /// Standard output takes no more.
    Unprinted(io::Error),
    /// The daemon could not go on.
    Refused(Box<ErrorDocument>),
    /// The list is no document of this kind, or not a whole one.
    Broken(String),
}

/// Passes the parts of a list to `take`, as they come.
fn read(list: impl Read, take: &mut dyn FnMut(Part) -> io::Result<()>) -> Result<(), Ended> {
    let mut ended = None;
    let mut deserializer = serde_json::Deserializer::from_reader(list);
    let whole = Reading { take, ended: &mut ended }.deserialize(&mut deserializer);
    let whole = whole.and_then(|()| deserializer.end());
    match (ended, whole) {
        (Some(ended), _) => Err(ended),
        (None, Err(error)) => Err(Ended::Broken(error.to_string())),
        (None, Ok(())) => take(Part::End).map_err(Ended::Unprinted),
    }
}

/// What is still to be read, and what to do with it.
struct Reading<'a> {
    take: &'a mut dyn FnMut(Part) -> io::Result<()>,
    ended: &'a mut Option<Ended>,
}

impl Reading<'_> {
    /// Passes a part on.
    fn pass<E: serde::de::Error>(&mut self, part: Part) -> Result<(), E> {
        (self.take)(part).map_err(|error| self.end(Ended::Unprinted(error)))
    }

    /// The error that ends the reading, for a reason of its own.
    fn end<E: serde::de::Error>(&mut self, why: Ended) -> E {
        *self.ended = Some(why);
        E::custom("ended")
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of extents")
    }

    /// The extents come behind what is said of the volume.
    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        let (mut volume, mut size, mut block_size, mut extent_size) = (None, None, None, None);
        let mut since: Option<String> = None;
        let mut has_list = false;
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "volume" => volume = Some(map.next_value()?),
                "since" => since = map.next_value()?,
                "size" => size = Some(map.next_value()?),
                "block_size" => block_size = Some(map.next_value()?),
                "extent_size" => extent_size = Some(map.next_value()?),
                "extents" if !has_list => {
                    let missing = M::Error::missing_field;
                    self.pass(Part::Head(Extents {
                        volume: volume.take().ok_or_else(|| missing("volume"))?,
                        since: since.take(),
                        size: size.ok_or_else(|| missing("size"))?,
                        block_size: block_size.ok_or_else(|| missing("block_size"))?,
                        extent_size: extent_size.ok_or_else(|| missing("extent_size"))?,
                        extents: Vec::new(),
                    }))?;
                    map.next_value_seed(Elements(&mut self))?;
                    has_list = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        has_list.then_some(()).ok_or_else(|| M::Error::missing_field("extents"))
    }
}

/// The elements of the list.
struct Elements<'a, 'b>(&'a mut Reading<'b>);

/// An element of the list: an extent, or why the list does not go on.
#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Extent(Extent),
    Error { error: ErrorBody },
}

impl<'de> DeserializeSeed<'de> for Elements<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("extents")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut elements: S) -> Result<(), S::Error> {
        let Self(reading) = self;
        while let Some(element) = elements.next_element()? {
            match element {
                Element::Extent(extent) => reading.pass(Part::Extent(extent))?,
                Element::Error { error } => {
                    return Err(reading.end(Ended::Refused(Box::new(ErrorDocument { error }))));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"volume":"db","size":1073741824,"block_size":512,"extent_size":65536,"extents":["#;

    /// What is printed of a list, and how the reading ends.
    fn printed(list: &str, json: bool) -> (String, Result<(), Ended>) {
        let mut printer =
            Printer { out: Vec::new(), json, word: "used", size: 0, width: 0, runs: 0, bytes: 0 };
        let ended = read(list.as_bytes(), &mut |part| printer.print(part));
        (String::from_utf8(printer.out).unwrap(), ended)
    }

    #[test]
    fn a_list_is_a_table_with_a_sum_and_the_same_document() {
        let extents = "{\"offset\":0,\"length\":65536}\n,{\"offset\":1073676288,\"length\":65536}";
        for (extents, table) in [
            (
                extents,
                "OFFSET      LENGTH\n0           65536\n1073676288  65536\n128 KiB of 1 GiB in 2 runs\n",
            ),
            (&extents[..27], "OFFSET      LENGTH\n0           65536\n64 KiB of 1 GiB in 1 run\n"),
            ("\n\n", "no used extents\n"),
        ] {
            let list = format!("{HEAD}{extents}]}}");
            let (text, ended) = printed(&list, false);
            assert!(ended.is_ok() && text == table, "{text}");
            let (text, ended) = printed(&list, true);
            let document = |text: &str| serde_json::from_str::<Extents>(text).unwrap();
            assert!(ended.is_ok(), "{text}");
            assert_eq!(document(&text), document(&list));
        }
        let later = format!("{HEAD}],\"more\":{{\"a\":[1]}}}}");
        assert_eq!(printed(&later, false).0, "no used extents\n", "a field of a later version");
    }

    #[test]
    fn a_list_that_is_not_whole_ends_with_the_cause_and_is_no_document() {
        let extent = r#"{"offset":0,"length":65536}"#;
        let error = r#"{"error":{"asked":"a","why":"w","do":"d","code":"refused"}}"#;
        let (text, ended) = printed(&format!("{HEAD}{extent},{error}"), true);
        assert!(matches!(ended, Err(Ended::Refused(document)) if document.error.why == "w"));
        assert!(text.contains("65536") && serde_json::from_str::<Extents>(&text).is_err(), "{text}");
        let whole = format!("{HEAD}{extent}]}}");
        for cut in 0..whole.len() {
            let (text, ended) = printed(&whole[..cut], false);
            assert!(matches!(ended, Err(Ended::Broken(_))) && !text.contains("run"), "{cut}: {text}");
        }
        for wrong in ["[]", "{}", "{\"extents\":[]}", &format!("{whole}x"), &whole.replace("length", "l")] {
            assert!(matches!(printed(wrong, false).1, Err(Ended::Broken(_))), "{wrong}");
        }
    }
}
