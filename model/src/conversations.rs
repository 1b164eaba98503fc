//! The conversations of the original LLaVA code, as chat templates. Input: a name, or the text model. Output: a template.
//! Source: `llava/conversation.py` in haotian-liu/LLaVA and LLaVA-VL/LLaVA-NeXT.
//!
//! A template prints what `Conversation.get_prompt` prints: pictures as `<image>` with a newline, before the text of their turn.
//! A system message replaces the default system text.

/// A template: the default system text, and what prints `system` and `turns`. `said(turn)` is the content of a turn.
macro_rules! template {
    ($system:literal, $($body:literal),+ $(,)?) => {
        concat!(
            "{% macro said(turn) %}",
            "{% if turn.content is string %}{{ turn.content }}{% else %}",
            r"{% for part in turn.content if part.type == 'image' %}{{ '<image>\n' }}{% endfor %}",
            "{% for part in turn.content if part.type == 'text' %}{{ part.text }}{% endfor %}",
            "{% endif %}{% endmacro %}",
            "{% set system = \"", $system, "\" %}{% set turns = messages %}",
            "{% if messages[0].role == 'system' %}",
            "{% set system = said(messages[0]) %}{% set turns = messages[1:] %}{% endif %}",
            "{% for turn in turns if turn.role not in ['user', 'assistant'] %}",
            "{{ raise_exception('expected the role user or assistant, got ' ~ turn.role) }}{% endfor %}",
            $($body),+
        )
    };
}

/// `conv_vicuna_v1`: LLaVA-1.5 and LLaVA-1.6 with Vicuna.
const VICUNA_V1: &str = template!(
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "{{ system ~ ' ' }}",
    "{% for turn in turns %}",
    "{% if turn.role == 'user' %}{{ 'USER: ' ~ said(turn) ~ ' ' }}{% else %}{{ 'ASSISTANT: ' ~ said(turn) ~ '</s>' }}{% endif %}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
);

/// `conv_mistral_instruct`: LLaVA-1.6 with Mistral.
const MISTRAL_INSTRUCT: &str = template!(
    "",
    "{% for turn in turns %}",
    "{% if turn.role == 'user' %}{{ '[INST] ' }}",
    r"{% if loop.first and system %}{{ '<<SYS>>\n' ~ system ~ '\n<</SYS>>\n\n' }}{% endif %}",
    "{{ said(turn) ~ ' [/INST]' }}{% else %}{{ ' ' ~ said(turn) ~ ' </s>' }}{% endif %}",
    "{% endfor %}",
);

/// `conv_llava_llama_3`: LLaVA-NeXT with Llama 3, whose own chat template it calls.
const LLAVA_LLAMA_3: &str = template!(
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, and assist the user with a variety of tasks using natural language.",
    r"{{ '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n' ~ (system | trim) ~ '<|eot_id|>' }}",
    "{% for turn in turns %}",
    r"{{ '<|start_header_id|>' ~ turn.role ~ '<|end_header_id|>\n\n' ~ (said(turn) | trim) ~ '<|eot_id|>' }}",
    "{% endfor %}",
    r"{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
);

/// `conv_chatml_direct`: LLaVA-1.6 with Yi 34B.
const CHATML_DIRECT: &str = template!(
    "Answer the questions.",
    r"{{ '<|im_start|>system\n' ~ system ~ '<|im_end|>' }}",
    r"{% for turn in turns %}{{ '<|im_start|>' ~ turn.role ~ '\n' ~ said(turn) ~ '<|im_end|>' }}{% endfor %}",
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
);

/// `conv_qwen`: LLaVA-NeXT and LLaVA-OneVision with Qwen1.5 and Qwen2.
const QWEN_1_5: &str = template!(
    "You are a helpful assistant.",
    r"{{ '<|im_start|>system\n' ~ system ~ '<|im_end|>\n' }}",
    r"{% for turn in turns %}{{ '<|im_start|>' ~ turn.role ~ '\n' ~ said(turn) ~ '<|im_end|>\n' }}{% endfor %}",
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
);

/// The templates by the names that LLaVA gives to them.
const CONVERSATIONS: [(&str, &str); 5] = [
    ("vicuna_v1", VICUNA_V1),
    ("mistral_instruct", MISTRAL_INSTRUCT),
    ("llava_llama_3", LLAVA_LLAMA_3),
    ("chatml_direct", CHATML_DIRECT),
    ("qwen_1_5", QWEN_1_5),
];

/// Number of rows of Llama 3's embedding.
const LLAMA_3_VOCAB: u64 = 128_256;
/// Number of rows of Yi's embedding.
const YI_VOCAB: u64 = 64_000;

/// The template of this name.
pub(crate) fn conversation(name: &str) -> Option<&'static str> {
    CONVERSATIONS.iter().find(|(known, _)| *known == name).map(|(_, template)| *template)
}

/// The known names, for messages.
pub(crate) fn names() -> String {
    CONVERSATIONS.map(|(name, _)| name).join(" or ")
}

/// The template for a text model. LLaVA chooses by the name of the checkpoint's folder, which is not known here.
pub(crate) fn chosen(family: &str, vocab: u64) -> &'static str {
    match (family, vocab) {
        ("mistral", _) => MISTRAL_INSTRUCT,
        ("qwen2", _) => QWEN_1_5,
        (_, LLAMA_3_VOCAB..) => LLAVA_LLAMA_3,
        (_, YI_VOCAB) => CHATML_DIRECT,
        _ => VICUNA_V1,
    }
}

#[cfg(test)]
mod tests {
    use fovea_templates::{ChatTemplate, Content, Message, Part};
    use serde_json::{Value, json};

    use super::*;

    /// Renders a dialogue, which the prefix gives to the template instead of one question.
    fn render(name: &str, dialogue: Value) -> Result<String, String> {
        let text = "{% set messages = dialogue %}".to_owned() + conversation(name).unwrap();
        let special = json!({ "dialogue": dialogue }).as_object().cloned().unwrap_or_default();
        let template = ChatTemplate::new(text, special).map_err(|e| e.to_string())?;
        template.render(&[question("?")], true).map_err(|e| e.to_string())
    }

    fn question(text: &str) -> Message<'_> {
        Message { role: "user", content: Content::Parts(vec![Part::Image, Part::Text(text)]) }
    }

    fn user(text: &str) -> Value {
        json!({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]})
    }

    fn text(role: &str, text: &str) -> Value {
        json!({"role": role, "content": [{"type": "text", "text": text}]})
    }

    // The expected texts were written by hand from `Conversation.get_prompt` and the fields of each conversation.

    #[test]
    fn prints_one_question_as_llava_does() {
        let vicuna = concat!(
            "A chat between a curious user and an artificial intelligence assistant. ",
            "The assistant gives helpful, detailed, and polite answers to the user's questions. ",
            "USER: <image>\nWhat is it? ASSISTANT:"
        );
        let llama = concat!(
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n",
            "You are a helpful language and vision assistant. ",
            "You are able to understand the visual content that the user provides, ",
            "and assist the user with a variety of tasks using natural language.<|eot_id|>",
            "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        );
        let chatml = concat!(
            "<|im_start|>system\nAnswer the questions.<|im_end|>",
            "<|im_start|>user\n<image>\nWhat is it?<|im_end|><|im_start|>assistant\n"
        );
        let qwen = concat!(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
            "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
        );
        for (name, expected) in [
            ("vicuna_v1", vicuna),
            ("mistral_instruct", "[INST] <image>\nWhat is it? [/INST]"),
            ("llava_llama_3", llama),
            ("chatml_direct", chatml),
            ("qwen_1_5", qwen),
        ] {
            let template = ChatTemplate::new(conversation(name).unwrap().to_owned(), Default::default()).unwrap();
            assert_eq!(template.render(&[question("What is it?")], true).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn prints_a_dialogue_as_llava_does() {
        let dialogue = json!([
            text("system", "Be brief."),
            user("What is it?"),
            text("assistant", "A cat."),
            text("user", "Sure?")
        ]);
        for (name, expected) in [
            ("vicuna_v1", "Be brief. USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"),
            (
                "mistral_instruct",
                "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nWhat is it? [/INST] A cat. </s>[INST] Sure? [/INST]",
            ),
            (
                "llava_llama_3",
                concat!(
                    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>",
                    "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>",
                    "<|start_header_id|>assistant<|end_header_id|>\n\nA cat.<|eot_id|>",
                    "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>",
                    "<|start_header_id|>assistant<|end_header_id|>\n\n"
                ),
            ),
            (
                "chatml_direct",
                concat!(
                    "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n<image>\nWhat is it?<|im_end|>",
                    "<|im_start|>assistant\nA cat.<|im_end|><|im_start|>user\nSure?<|im_end|><|im_start|>assistant\n"
                ),
            ),
            (
                "qwen_1_5",
                concat!(
                    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n",
                    "<|im_start|>assistant\nA cat.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n",
                    "<|im_start|>assistant\n"
                ),
            ),
        ] {
            assert_eq!(render(name, dialogue.clone()).as_deref(), Ok(expected), "{name}");
        }
    }

    /// Mistral's conversation has no default system text; Llama 3's own template trims every message, the others none.
    #[test]
    fn keeps_white_space_as_llava_does() {
        let dialogue = json!([user(" a "), {"role": "assistant", "content": " b "}, text("user", " c ")]);
        let mistral = "[INST] <image>\n a  [/INST]  b  </s>[INST]  c  [/INST]";
        assert_eq!(render("mistral_instruct", dialogue.clone()).as_deref(), Ok(mistral));
        let llama = render("llava_llama_3", dialogue).unwrap();
        let turns = concat!(
            "user<|end_header_id|>\n\n<image>\n a<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nb<|eot_id|>",
            "<|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|>"
        );
        assert!(llama.contains(turns), "{llama}");
    }

    #[test]
    fn refuses_other_roles() {
        for (name, _) in CONVERSATIONS {
            let error = render(name, json!([user("a"), text("tool", "b")])).unwrap_err();
            assert!(error.contains("expected the role user or assistant, got tool"), "{name}: {error}");
        }
    }

    #[test]
    fn chooses_by_the_text_model() {
        for (family, vocab, name) in [
            ("llama", 32_000, "vicuna_v1"),
            ("llama", 64_000, "chatml_direct"),
            ("llama", 128_256, "llava_llama_3"),
            ("llama", 128_320, "llava_llama_3"),
            ("mistral", 32_000, "mistral_instruct"),
            ("qwen2", 152_064, "qwen_1_5"),
        ] {
            assert_eq!(Some(chosen(family, vocab)), conversation(name), "{family} {vocab}");
        }
        assert_eq!(conversation("alpaca"), None);
    }
}
