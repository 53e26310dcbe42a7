//! A schema from a sample of values.
//!
//! Rules: bool, whole number (int64; uint64 for those above), float, text, list and object are
//! told apart. Whole numbers and floats become float64. Anything else that disagrees becomes
//! text, in which a value that is no string is shown as its JSON. Fields are the union of those
//! seen, in the order in which they came; all are nullable. A field that was only ever null is
//! text. Strings are not guessed to be times: give a schema for that.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use simd_json::{Node, StaticNode};

use super::{Parser, behind};

/// Objects and lists nested deeper than this are text.
const DEPTH_MAX: usize = 32;
/// Fields of one object beyond this number are left out: such objects are maps, not records.
const FIELDS_MAX: usize = 2048;

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Null,
    Bool,
    Int,
    BigInt,
    Float,
    Text,
    List(Box<Shape>),
    Object(Vec<(String, Shape)>),
}

/// Gathers the shape of values.
#[derive(Debug, Default)]
pub(in crate::columnar) struct Inference {
    fields: Vec<(String, Shape)>,
    parser: Parser,
}

impl Inference {
    /// Looks at one value. What is no JSON object says nothing about the schema.
    pub(in crate::columnar) fn add(&mut self, value: &[u8]) {
        let fields = &mut self.fields;
        self.parser
            .with(value, |nodes| match shape(nodes, 0, 0) {
                Shape::Object(more) => {
                    merge_fields(fields, more);
                    Ok(())
                }
                _ => Err("not an object".to_owned()),
            })
            .ok();
    }

    /// The fields of all objects that were seen.
    pub(in crate::columnar) fn fields(&self) -> Fields {
        self.fields.iter().map(|(name, shape)| Arc::new(field(name, shape))).collect()
    }
}

fn shape(nodes: &[Node<'_>], at: usize, depth: usize) -> Shape {
    let deeper = depth.saturating_add(1);
    match nodes.get(at) {
        None | Some(Node::Static(StaticNode::Null)) => Shape::Null,
        Some(Node::Static(StaticNode::Bool(_))) => Shape::Bool,
        Some(Node::Static(StaticNode::I64(_))) => Shape::Int,
        Some(Node::Static(StaticNode::U64(value))) => {
            if i64::try_from(*value).is_ok() {
                Shape::Int
            } else {
                Shape::BigInt
            }
        }
        Some(Node::Static(StaticNode::F64(_))) => Shape::Float,
        Some(Node::String(_)) => Shape::Text,
        Some(Node::Array { .. } | Node::Object { .. }) if depth >= DEPTH_MAX => Shape::Text,
        Some(Node::Array { len, .. }) => {
            let mut item = Shape::Null;
            let mut item_at = at.saturating_add(1);
            for _ in 0..*len {
                item = merge(item, shape(nodes, item_at, deeper));
                item_at = behind(nodes, item_at);
            }
            Shape::List(Box::new(item))
        }
        Some(Node::Object { len, .. }) => {
            let mut fields = Vec::with_capacity((*len).min(64));
            let mut name_at = at.saturating_add(1);
            for _ in 0..*len {
                let Some(Node::String(name)) = nodes.get(name_at) else { break };
                let value_at = name_at.saturating_add(1);
                let value = shape(nodes, value_at, deeper);
                merge_fields(&mut fields, vec![((*name).to_owned(), value)]);
                name_at = behind(nodes, value_at);
            }
            Shape::Object(fields)
        }
    }
}

fn merge(one: Shape, other: Shape) -> Shape {
    use Shape::{BigInt, Float, Int, List, Null, Object, Text};
    match (one, other) {
        (Null, shape) | (shape, Null) => shape,
        (one, other) if one == other => one,
        (Int | BigInt | Float, Int | BigInt | Float) => Float,
        (List(one), List(other)) => List(Box::new(merge(*one, *other))),
        (Object(mut fields), Object(more)) => {
            merge_fields(&mut fields, more);
            Object(fields)
        }
        _ => Text,
    }
}

fn merge_fields(fields: &mut Vec<(String, Shape)>, more: Vec<(String, Shape)>) {
    for (place, (name, shape)) in more.into_iter().enumerate() {
        // Most objects have the fields of the ones before at the same places.
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
            None => {}
        }
    }
}

fn field(name: &str, shape: &Shape) -> Field {
    Field::new(name, data_type(shape), true)
}

fn data_type(shape: &Shape) -> DataType {
    match shape {
        Shape::Bool => DataType::Boolean,
        Shape::Int => DataType::Int64,
        Shape::BigInt => DataType::UInt64,
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
