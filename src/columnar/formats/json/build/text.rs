//! Parsed values as JSON text.

use simd_json::{Node, StaticNode};

use super::super::Doc;
use super::super::write::{put_i64, put_string, put_u64};

/// The JSON text of a parsed value without white space; of a string, with its quotes. Numbers are
/// kept as they were written.
pub(super) fn node_text(doc: &Doc<'_>, at: usize) -> String {
    let mut output = Vec::new();
    put_node(&mut output, doc, at);
    String::from_utf8_lossy(&output).into_owned()
}

fn put_node(output: &mut Vec<u8>, doc: &Doc<'_>, at: usize) {
    match doc.get(at) {
        None | Some(Node::Static(StaticNode::Null)) => output.extend_from_slice(b"null"),
        Some(Node::Static(StaticNode::Bool(value))) => {
            output.extend_from_slice(if *value { b"true" } else { b"false" });
        }
        Some(Node::Static(StaticNode::I64(value))) => put_i64(output, *value),
        Some(Node::Static(StaticNode::U64(value))) => put_u64(output, *value),
        Some(Node::Static(StaticNode::F64(_))) => {
            output.extend_from_slice(doc.number_text(at).as_bytes());
        }
        Some(Node::String(text)) => put_string(output, text),
        Some(Node::Array { len, .. }) => {
            output.push(b'[');
            let mut item_at = at.saturating_add(1);
            for index in 0..*len {
                if index > 0 {
                    output.push(b',');
                }
                put_node(output, doc, item_at);
                item_at = doc.behind(item_at);
            }
            output.push(b']');
        }
        Some(Node::Object { len, .. }) => {
            output.push(b'{');
            let mut name_at = at.saturating_add(1);
            for index in 0..*len {
                if index > 0 {
                    output.push(b',');
                }
                put_node(output, doc, name_at);
                output.push(b':');
                let value_at = name_at.saturating_add(1);
                put_node(output, doc, value_at);
                name_at = doc.behind(value_at);
            }
            output.push(b'}');
        }
    }
}
