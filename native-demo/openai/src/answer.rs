//! OpenAI's JSON for an answer. Input: a [`Turn`], and its report by [`fovea_model::Model::report`]. Output: the objects
//! `chat.completion`, `chat.completion.chunk` and `usage`.

use fovea_model::{Stage, Turn};
use serde_json::{Value, json};

/// Numbers of tokens of an answer: OpenAI's keys, and three more.
///
/// - `prompt_tokens` = tokens of text + visual tokens that enter the text model; `completion_tokens` includes the stop token.
/// - `prompt_tokens_details.cached_tokens`: tokens of the prompt whose lower layers were computed for an earlier question.
/// - `visual_tokens`: [`fovea_model::TokenCounts`].
/// - `equivalent_share`: [`fovea_model::Statistics::equivalent_share`].
/// - `picture_cached`: whether there are pictures, and their features are from an earlier question.
pub fn usage(turn: &Turn) -> Value {
    let statistics = &turn.statistics;
    let (prompt, completion) = (turn.prompt.text_tokens() + statistics.tokens.compressed, turn.answer_ids.len());
    let computed = statistics.stage_ms.contains_key(&Stage::VisionTower);
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": statistics.cached_tokens },
        "visual_tokens": statistics.tokens,
        "equivalent_share": statistics.equivalent_share,
        "picture_cached": !turn.looked.is_empty() && !computed,
    })
}

/// The object `chat.completion`, with the compression that ran as `compression`. `created` is in seconds since 1970.
pub fn completion(id: &str, created: u64, model: &str, turn: &Turn, report: &Value) -> Value {
    json!({
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": turn.text },
            "finish_reason": turn.finish_reason,
        }],
        "usage": usage(turn),
        "compression": report["compression"],
    })
}

/// The object `chat.completion.chunk`: `delta` is what a part of an answer adds, and the last one has a `finish_reason`.
pub fn chunk(id: &str, created: u64, model: &str, delta: Value, finish_reason: Option<&str>) -> Value {
    json!({
        "id": id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_the_form_of_openai() {
        let choice = |delta: Value, reason: Value| json!([{ "index": 0, "delta": delta, "finish_reason": reason }]);
        for (delta, reason, expected) in [
            (json!({"role": "assistant"}), None, choice(json!({"role": "assistant"}), Value::Null)),
            (json!({}), Some("stop"), choice(json!({}), json!("stop"))),
        ] {
            let chunk = chunk("a", 7, "m", delta, reason);
            assert_eq!(chunk["choices"], expected, "(got, expected)");
            let rest = (&chunk["id"], &chunk["object"], &chunk["created"], &chunk["model"]);
            assert_eq!(rest, (&json!("a"), &json!("chat.completion.chunk"), &json!(7), &json!("m")), "(got, expected)");
        }
    }
}
