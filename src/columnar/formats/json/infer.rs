//! A schema from a sample of values.
//!
//! Rules: bool, whole number, float, text, list and object are distinguished. Whole numbers are
//! int64; uint64 or decimal128(38, 0) if one of them needs it, and text if neither can hold it.
//! Whole numbers and floats become float64, unless a whole number is too large for a float to hold
//! it: then they are text. Any other mixture becomes text, in which a value that is not a string is
//! shown as its JSON. Fields are the union of those seen, in order of first appearance; all are
//! nullable. A field that was always null is text. Strings are never guessed to be times: pass a
//! schema for that.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use simd_json::{Node, StaticNode};

use super::build::is_wide;
use super::{Doc, Parser, explain, number};

/// Objects and lists nested deeper than this are text.
const DEPTH_MAX: usize = 32;
/// An object with more fields is text: it is a map, not a record. The value itself keeps this many.
const FIELDS_MAX: usize = 2048;

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Null,
    Bool,
    Whole(Whole),
    Float,
    Text,
    List(Box<Shape>),
    Object(Vec<(String, Shape)>),
}

/// The kinds of whole numbers seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Whole {
    negative: bool,
    /// Whether some are too large for every float to hold.
    wide: bool,
    size: Size,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Size {
    #[default]
    Int64,
    UInt64,
    Digits38,
    More,
}

impl Whole {
    fn of_signed(value: i64) -> Self {
        Self { negative: value < 0, wide: is_wide(value), size: Size::Int64 }
    }

    fn of_digits(digits: &str) -> Self {
        let negative = digits.starts_with('-');
        let size =
            if digits.len() > 38 + usize::from(negative) { Size::More } else { Size::Digits38 };
        Self { negative, wide: true, size }
    }

    fn and(self, other: Self) -> Self {
        Self {
            negative: self.negative || other.negative,
            wide: self.wide || other.wide,
            size: self.size.max(other.size),
        }
    }

    const fn data_type(self) -> DataType {
        match self.size {
            Size::Int64 => DataType::Int64,
            Size::UInt64 if !self.negative => DataType::UInt64,
            Size::UInt64 | Size::Digits38 => DataType::Decimal128(38, 0),
            Size::More => DataType::Utf8View,
        }
    }
}

/// Collects the shape of values.
#[derive(Debug, Default)]
pub(in crate::columnar) struct Inference {
    fields: Vec<(String, Shape)>,
    parser: Parser,
}

impl Inference {
    /// Examines one value; an error says why it has no fields.
    pub(in crate::columnar) fn add(&mut self, value: &[u8]) -> Result<(), String> {
        let fields = &mut self.fields;
        self.parser.with(value, |doc| match shape(doc, 0, 0) {
            Shape::Object(more) => {
                merge_fields(fields, more);
                Ok(())
            }
            _ => Err(explain::not_object(doc.kind(), value)),
        })
    }

    /// The fields of all objects seen.
    pub(in crate::columnar) fn fields(&self) -> Fields {
        self.fields.iter().map(|(name, shape)| Arc::new(field(name, shape))).collect()
    }

    /// The fields of Debezium events, bare or in `payload`: rows before and after a change have the
    /// fields of both, and bare events those of the others.
    pub(in crate::columnar) fn event_fields(&self, parts: &[&str]) -> Fields {
        let is_part = |name: &str| parts.contains(&name);
        let mut event: Vec<(String, Shape)> = Vec::new();
        let inside = self.payload();
        merge_fields(&mut event, inside.map(<[_]>::to_vec).unwrap_or_default());
        let bare = self.fields.iter().any(|(name, _)| name == "op");
        if bare {
            let own = self.fields.iter().filter(|(name, _)| is_part(name));
            merge_fields(&mut event, own.cloned().collect());
        }
        let row = |name: &str| event.iter().find(|(known, _)| known == name).map(|one| &one.1);
        let rows = [row("after"), row("before")].into_iter().flatten().cloned();
        let row = rows.fold(Shape::Null, merge);
        for (_, shape) in event.iter_mut().filter(|one| matches!(&*one.0, "after" | "before")) {
            *shape = row.clone();
        }
        let mut fields = self.fields.clone();
        for (name, shape) in &mut fields {
            if name == "payload" && inside.is_some() {
                *shape = Shape::Object(event.clone());
            } else if bare && let Some((_, known)) = event.iter().find(|one| one.0 == *name) {
                *shape = known.clone();
            }
        }
        fields.iter().map(|(name, shape)| Arc::new(field(name, shape))).collect()
    }

    /// Whether any member with one of these names was ever not null.
    pub(in crate::columnar) fn any_of_event(&self, names: &[&str]) -> bool {
        let members = self.payload().unwrap_or_default().iter().chain(&self.fields);
        let mut wanted = members.filter(|(name, _)| names.contains(&name.as_str()));
        wanted.any(|(_, shape)| *shape != Shape::Null)
    }

    /// The members of an event in `payload`.
    fn payload(&self) -> Option<&[(String, Shape)]> {
        match &self.fields.iter().find(|(name, _)| name == "payload")?.1 {
            Shape::Object(event) if event.iter().any(|(name, _)| name == "op") => Some(event),
            _ => None,
        }
    }
}

fn shape(doc: &Doc<'_>, at: usize, depth: usize) -> Shape {
    let deeper = depth.saturating_add(1);
    match doc.get(at) {
        None | Some(Node::Static(StaticNode::Null)) => Shape::Null,
        Some(Node::Static(StaticNode::Bool(_))) => Shape::Bool,
        Some(Node::Static(StaticNode::I64(value))) => Shape::Whole(Whole::of_signed(*value)),
        Some(Node::Static(StaticNode::U64(value))) => {
            Shape::Whole(i64::try_from(*value).map_or(
                Whole { negative: false, wide: true, size: Size::UInt64 },
                Whole::of_signed,
            ))
        }
        Some(Node::Static(StaticNode::F64(value))) if value.is_nan() => {
            outsize(doc.number_text(at))
        }
        Some(Node::Static(StaticNode::F64(_))) => Shape::Float,
        Some(Node::String(_)) => Shape::Text,
        Some(Node::Array { .. } | Node::Object { .. }) if depth >= DEPTH_MAX => Shape::Text,
        Some(Node::Array { len, .. }) => {
            let mut item = Shape::Null;
            let mut item_at = at.saturating_add(1);
            for _ in 0..*len {
                item = merge(item, shape(doc, item_at, deeper));
                item_at = doc.behind(item_at);
            }
            Shape::List(Box::new(item))
        }
        Some(Node::Object { len, .. }) => {
            let mut fields = Vec::with_capacity((*len).min(64));
            let mut name_at = at.saturating_add(1);
            for _ in 0..*len {
                let Some(Node::String(name)) = doc.get(name_at) else { break };
                let value_at = name_at.saturating_add(1);
                let value = shape(doc, value_at, deeper);
                if depth == 0 {
                    merge_fields(&mut fields, vec![((*name).to_owned(), value)]);
                } else if !merge_fields(&mut fields, vec![((*name).to_owned(), value)]) {
                    return Shape::Text;
                }
                name_at = doc.behind(value_at);
            }
            Shape::Object(fields)
        }
    }
}

/// The shape of a number that the parser cannot hold.
fn outsize(text: &str) -> Shape {
    let is_whole = !text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    match number::scaled(text, 0) {
        Some(digits) if is_whole => Shape::Whole(Whole::of_digits(&digits)),
        _ if text.parse::<f64>().is_ok_and(f64::is_finite) => Shape::Float,
        _ => Shape::Text,
    }
}

fn merge(one: Shape, other: Shape) -> Shape {
    use Shape::{Float, List, Null, Object, Text};
    match (one, other) {
        (Null, shape) | (shape, Null) => shape,
        (one, other) if one == other => one,
        (Shape::Whole(one), Shape::Whole(other)) => Shape::Whole(one.and(other)),
        (Shape::Whole(one), Float) | (Float, Shape::Whole(one)) if !one.wide => Float,
        (List(one), List(other)) => List(Box::new(merge(*one, *other))),
        (Object(mut fields), Object(more)) => {
            if merge_fields(&mut fields, more) {
                Object(fields)
            } else {
                Text
            }
        }
        _ => Text,
    }
}

/// Adds fields; false if there are too many of them, and some are left out.
fn merge_fields(fields: &mut Vec<(String, Shape)>, more: Vec<(String, Shape)>) -> bool {
    let mut all = true;
    for (place, (name, shape)) in more.into_iter().enumerate() {
        // Most objects have their fields at the same positions as earlier ones.
        let here = fields.get(place).is_some_and(|(known, _)| *known == name);
        let index =
            if here { Some(place) } else { fields.iter().position(|(known, _)| *known == name) };
        match index {
            Some(index) => {
                if let Some((_, known)) = fields.get_mut(index) {
                    let before = std::mem::replace(known, Shape::Null);
                    *known = merge(before, shape);
                }
            }
            None if fields.len() < FIELDS_MAX => fields.push((name, shape)),
            None => all = false,
        }
    }
    all
}

fn field(name: &str, shape: &Shape) -> Field {
    Field::new(name, data_type(shape), true)
}

fn data_type(shape: &Shape) -> DataType {
    match shape {
        Shape::Bool => DataType::Boolean,
        Shape::Whole(whole) => whole.data_type(),
        Shape::Float => DataType::Float64,
        Shape::Null | Shape::Text => DataType::Utf8View,
        Shape::List(item) => DataType::List(Arc::new(field("item", item))),
        // A struct without fields cannot hold anything; its text can.
        Shape::Object(fields) if fields.is_empty() => DataType::Utf8View,
        Shape::Object(fields) => {
            let fields: Fields =
                fields.iter().map(|(name, shape)| Arc::new(field(name, shape))).collect();
            DataType::Struct(fields)
        }
    }
}
