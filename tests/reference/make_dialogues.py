#!/usr/bin/env python3
"""Write tests/fixtures/dialogues.json: several messages, and what Hugging Face's processors and models make of them.

    make_dialogues.py [--out DIR] [--vocabularies DIR]
    make_dialogues.py --llava REPOSITORY        compares LLaVA's prompts with those of a copy of LLaVA-VL/LLaVA-NeXT

| key | what it holds |
|---|---|
| `dialogues` | messages by name, in Hugging Face's form; a text is a message of one text |
| `templates` | chat templates that refuse some dialogues |
| `prompts` | `ids` of a dialogue under a checkpoint's tokenizer and template, or the reason why it is `refused` |
| `answers` | the greedy answer of each turn of a dialogue, and the logits of its first token, rounded to 1e-4 |
| `scores` | the importance of the visual tokens for the last question of a dialogue, and for all text after the picture; from focus_reference.py |
| `real` | `ids` of one dialogue under real vocabularies (`real_tokenizers.py build` writes --vocabularies; without it they stay) |

Every place of a picture is one id. As in cases.json the decisions have a margin: each answer is that of the first pictures on which
the two largest logits of all steps differ by 0.01. The pictures of `scores` are chosen in the same way.
"""
import argparse
import functools
import json
from pathlib import Path

import torch
from jinja2.exceptions import TemplateError, UndefinedError
from PIL import Image
from transformers import AutoProcessor, logging

import original
from focus_reference import top_k
from make_fixtures import FLOORS

NEW = 6
PICTURES = ("48x48-0.png", "61x130-0.png")          # of the prompts
PICTURE = {"type": "image"}
SHIRT, COLOR, WHERE = "What number is on the shirt?", "  And what color is it?\n", "Where?"
ODD = "1. A \"shirt\"\n\n2. Größe e\u0301 数字 👩‍🚀\t{{ x }} {% if %}\n"


def said(role, *parts):
    return {"role": role, "content": parts[0] if len(parts) == 1 and isinstance(parts[0], str) else
            [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]}


user, assistant = functools.partial(said, "user"), functools.partial(said, "assistant")
SYSTEM = said("system", "Be brief.")
THREE = [user(PICTURE, SHIRT), assistant("The number 7."), user(COLOR), assistant("Red."), user(WHERE)]
TEXT = [user(SHIRT), *THREE[1:]]
DIALOGUES = {
    "system": [SYSTEM, THREE[0]],
    "three": THREE,
    "system-three": [SYSTEM, *THREE],
    "empty-system": [said("system", ""), *THREE[:3]],
    "second": [user("Hello."), assistant("Hello. What can I do?"), user(PICTURE, SHIRT)],
    "two": [user(PICTURE, SHIRT), assistant("7"), user(PICTURE, "And on this one?")],
    "two-first": [user(PICTURE, PICTURE, "What has changed?"), assistant("The number."), user(COLOR)],
    "odd": [THREE[0], assistant(ODD), user(WHERE), assistant(" "), user("x\n\n")],
    "empty": [user(PICTURE, ""), assistant(""), user("")],
    "around": [user("Look at", PICTURE, "and at the shirt."), assistant("Yes."), user(WHERE)],
    "text": TEXT,
    "system-text": [SYSTEM, *TEXT[:3]],
    "users": [THREE[0], user(WHERE)],
}
REFUSING = {                                        # as the templates of some published text models
    "alternating": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
                   "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
                   "{{ message['role'] + ':' }}{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
                   "{% endfor %}{{ 'assistant:' }}",
    "no-system": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{{ bos_token }}"
                 "{% for message in messages %}{{ '[' + message['role'] + '] ' }}{% for part in message['content'] %}"
                 "{{ '<image>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}{% endfor %}{{ '[assistant]' }}",
}
REFUSED_BY = "mistral-0"                            # the checkpoint whose template they replace
PROMPTED = ["stock-0", "mistral-0", "vicuna-0", "bos-0", "published-vicuna-0", "published-mistral-0", "qwen2-0", "yi-0", "llava15-0",
            "interleave-0", "onevision-0", "smolvlm-0", "smolvlm-3", "granite-0"]
ORIGINAL = {"original-vicuna-0": "vicuna_v1", "original-mistral-0": "mistral_instruct", "original-qwen-0": "qwen_1_5"}
# LLaVA's code takes an empty message for the place of the answer, and its pictures come first.
LLAVA = ["system", "three", "system-three", "second", "two", "odd", "text", "system-text"]
QUESTIONS = [user(PICTURE, SHIRT), user(COLOR), user("Where is it?")]
ANSWERS = [                                         # name, model, the users' messages, sizes of the pictures
    ("stock", "stock-0", QUESTIONS, 1), ("vicuna", "vicuna-0", QUESTIONS, 1), ("mistral", "mistral-0", QUESTIONS, 1),
    ("qwen2", "qwen2-2", QUESTIONS, 1), ("llava15", "llava15-2", QUESTIONS, 1), ("interleave", "interleave-2", QUESTIONS, 1),
    ("onevision", "onevision-2", QUESTIONS, 1), ("smolvlm", "smolvlm-2", QUESTIONS, 1), ("granite", "granite-2", QUESTIONS, 1),
    ("second-picture", "stock-0", [user("Hello."), user(PICTURE, SHIRT), user(WHERE)], 1),
    ("second-picture-smolvlm", "smolvlm-2", [user("Hello."), user(PICTURE, SHIRT), user(WHERE)], 1),
    ("two-pictures", "interleave-2", [user(PICTURE, SHIRT), user(PICTURE, "And on this one?"), user(WHERE)], 2),
    ("two-pictures-onevision", "onevision-2", [user(PICTURE, SHIRT), user(PICTURE, "And on this one?"), user(WHERE)], 2),
    ("text", "stock-0", [user(SHIRT), user(COLOR), user(WHERE)], 0),
    ("text-smolvlm", "smolvlm-0", [user(WHERE), user(COLOR), user(SHIRT)], 0),
]


def parts(message):
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def with_images(messages, images):
    """The messages with every content as a list, and with the pictures in their places."""
    images = iter(images)
    return [{"role": m["role"], "content": [part | ({"image": next(images)} if part == PICTURE else {}) for part in parts(m)]} for m in messages]


def inputs(processor, messages, images, template=None):
    return processor.apply_chat_template(with_images(messages, images), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
                                         **({"chat_template": template} if template else {}))


def places(focus, given):
    """Input ids with one id for each place of a picture: as many image tokens as the place has features are one id."""
    ids, image = given["input_ids"][0].tolist(), focus.model.config.image_token_id
    pictures = {k: v for k, v in given.items() if k in ("pixel_values", "image_sizes", "pixel_attention_mask", "batch_num_images")}
    lengths = []
    if pictures:
        with torch.no_grad():
            features = list(focus.model.model.get_image_features(**pictures).pooler_output)
        if hasattr(focus.processor, "image_seq_len"):               # SmolVLM: a place per tile
            features = torch.cat(features).split(focus.processor.image_seq_len)
        lengths = [len(f) for f in features]
    lengths, found = iter(lengths), []
    while ids:
        found.append(ids[0])
        run = next(lengths) if ids[0] == image else 1
        assert ids[:run] == [ids[0]] * run
        ids = ids[run:]
    assert next(lengths, None) is None
    return found


def check_text(processor, messages):
    """Hugging Face reads the spelling of a special token in a message as this token, Fovea as text: no message here has one."""
    text = "\n".join(part.get("text", "") for m in messages for part in parts(m))
    assert not any(token.content in text for token in processor.tokenizer.added_tokens_decoder.values() if token.content.strip()), text


def make_prompts(focus_of, pictures):
    rows = []
    for model in PROMPTED:
        focus = focus_of(model)
        for name, messages in DIALOGUES.items():
            check_text(focus.processor, messages)
            images = [Image.open(pictures / file).convert("RGB") for file in PICTURES][:count(messages)]
            row = {"model": model, "dialogue": name}
            rows.append(row | {"ids": places(focus, inputs(focus.processor, messages, images))})
    for model, conversation in ORIGINAL.items():
        for name in LLAVA:
            rows.append({"model": model, "dialogue": name, "ids": llava_ids(focus_of(model), llava_prompt(conversation, DIALOGUES[name]))})
    focus = focus_of(REFUSED_BY)
    for template, text in REFUSING.items():
        for name, messages in DIALOGUES.items():
            images = [Image.open(pictures / file).convert("RGB") for file in PICTURES][:count(messages)]
            row = {"model": REFUSED_BY, "template": template, "dialogue": name}
            try:
                rows.append(row | {"ids": places(focus, inputs(focus.processor, messages, images, text))})
            except (TemplateError, UndefinedError) as why:
                rows.append(row | {"refused": str(why)})
    return rows


def count(messages):
    return sum(part == PICTURE for m in messages for part in parts(m))


# ---------------------------------------------------------------- the original LLaVA

def llava_prompt(conversation, messages):
    """What `get_prompt` of llava/conversation.py returns. The pictures of a message are before its text, each as `<image>` and a new line."""
    system, turns = (messages[0]["content"], messages[1:]) if messages[0]["role"] == "system" else (None, messages)
    texts = ["".join("<image>\n" if part == PICTURE else part["text"] for part in parts(m)) for m in turns]
    if conversation == "vicuna_v1":
        pairs = [f"USER: {text} " if i % 2 == 0 else f"ASSISTANT: {text}</s>" for i, text in enumerate(texts)]
        return (original.SYSTEM if system is None else system) + " " + "".join(pairs) + "ASSISTANT:"
    if conversation == "mistral_instruct":
        texts[0] = (f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else "") + texts[0]
        return "".join(f"[INST] {text} [/INST]" if i % 2 == 0 else f" {text} </s>" for i, text in enumerate(texts))
    pairs = [f"<|im_start|>{('user', 'assistant')[i % 2]}\n{text}<|im_end|>\n" for i, text in enumerate(texts)]
    return f"<|im_start|>system\n{system or 'You are a helpful assistant.'}<|im_end|>\n{''.join(pairs)}<|im_start|>assistant\n"


def llava_ids(focus, prompt):
    """`tokenizer_image_token` of llava/mm_utils.py: each part between pictures is encoded with its BOS, and all but the first lose it."""
    tokenizer, ids = focus.processor.tokenizer, []
    for i, text in enumerate(prompt.split("<image>")):
        own = tokenizer(text)["input_ids"]
        bos = i > 0 and tokenizer.bos_token_id is not None and own[:1] == [tokenizer.bos_token_id]
        ids += ([focus.model.config.image_token_id] if i > 0 else []) + own[bos:]
    return ids


def check_llava(focus_of, folder):
    """Compares with LLaVA's own code, which is read from a copy of its repository."""
    source = (folder / "llava/conversation.py").read_text().replace("from transformers import AutoTokenizer", "")
    code, tools = {"__name__": "conversation"}, {}
    exec(compile(source, "conversation.py", "exec"), code)
    text = (folder / "llava/mm_utils.py").read_text()
    start = text.index("def tokenizer_image_token")
    exec(compile("IMAGE_TOKEN_INDEX = -200\n" + text[start:text.index("\ndef ", start + 1)], "mm_utils.py", "exec"), tools)
    for model, conversation in ORIGINAL.items():
        focus = focus_of(model)
        for name in LLAVA:
            messages, talk = DIALOGUES[name], code["conv_templates"][conversation].copy()
            if messages[0]["role"] == "system":
                talk.system = ("<|im_start|>system\n" if conversation == "qwen_1_5" else "") + messages[0]["content"]
                messages = messages[1:]
            for i, m in enumerate(messages):
                talk.append_message(talk.roles[i % 2], "".join("<image>\n" if part == PICTURE else part["text"] for part in parts(m)))
            talk.append_message(talk.roles[1], None)
            theirs = talk.get_prompt()
            assert theirs == llava_prompt(conversation, DIALOGUES[name]), (name, theirs, llava_prompt(conversation, DIALOGUES[name]))
            image = focus.model.config.image_token_id
            assert [image if i == -200 else i for i in tools["tokenizer_image_token"](theirs, focus.processor.tokenizer)] == llava_ids(focus, theirs), name
    print(f"LLaVA's own code: the same text and ids of {len(LLAVA)} dialogues under {len(ORIGINAL)} conversations")


# ---------------------------------------------------------------- answers

def answered(focus, questions, images):
    """One turn after the other, each with Hugging Face's `generate`. None if a decision is too close, or the answer cannot be a message."""
    messages, turns, worst = [], [], float("inf")
    for question in questions:
        messages.append(question)
        given = inputs(focus.processor, messages, images[:count(messages)])
        with torch.no_grad():
            done = focus.model.generate(**given, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_logits=True)
        steps, ids = torch.cat(done.logits), done.sequences[0, given["input_ids"].shape[1]:].tolist()
        top = torch.cat([steps, steps.masked_fill(~focus.has_token, float("-inf"))]).topk(2, -1).values
        worst = min(worst, float((top[:, 0] - top[:, 1]).min()))
        if worst < FLOORS["greedy"] or not focus.has_token[ids].all():
            return None
        text = focus.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if any(token.content in text for token in focus.processor.tokenizer.added_tokens_decoder.values()):
            return None
        turns.append({"messages": len(messages), "answer_ids": ids, "text": text, "logits": [round(float(x), 4) for x in steps[0]]})
        messages.append(assistant(text))
    return messages[:-1], turns, worst


def make_answers(focus_of, pictures):
    files, rows = sorted(p.name for p in pictures.iterdir() if p.stat().st_size < 9000), []
    for name, model, questions, number in ANSWERS:
        focus = focus_of(model)
        for first in range(len(files) if number else 1):
            chosen = [files[(first + i) % len(files)] for i in range(number)]
            found = answered(focus, questions, [Image.open(pictures / file).convert("RGB") for file in chosen])
            if found:
                break
        assert found, name
        messages, turns, worst = found
        rows.append({"case": name, "model": model, "images": [f"pictures/{file}" for file in chosen], "messages": messages, "turns": turns,
                     "new": NEW, "greedy": float(f"{worst:.3g}")})
        print(f"{name:24} {model:14} {' '.join(chosen):28} {worst:.2g} {[turn['text'] for turn in turns]}", flush=True)
    return rows


# ---------------------------------------------------------------- scores

SCORED = [("tiny-0", "three"), ("vicuna-0", "system-three")]


@torch.no_grad()
def scored(focus, messages, image):
    """`Focus.run` up to the pruning, for several messages: the scores for the last question, and for all text after the picture. The question
    begins at the first id that the messages before it, without a prompt for an answer, do not have."""
    [tokens], _, _ = focus.encode(image)
    plain = lambda said, prompt: places(focus, focus.processor.apply_chat_template(
        with_images(said, [image]), add_generation_prompt=prompt, tokenize=True, return_dict=True, return_tensors="pt"))
    ids, before = plain(messages, True), plain(messages[:-1], False)
    asked = next(i for i, (a, b) in enumerate(zip(ids, before + [-1])) if a != b)
    at, embed = ids.index(focus.model.config.image_token_id), lambda i: focus.llm.embed_tokens(torch.tensor(i, dtype=torch.long))
    hidden = torch.cat([embed(ids[:at]), tokens, embed(ids[at + 1:])])
    positions, visual, after = torch.arange(len(hidden)), torch.arange(at, at + len(tokens)), at + len(tokens)
    for layer in focus.llm.layers[:focus.cfg["text_layer"]]:
        hidden, _ = focus.attend(layer, hidden, positions, None)
    score = lambda start: focus.text_scores(focus.llm.layers[focus.cfg["text_layer"]], hidden, positions, visual, start)
    return asked, score(after + asked - at - 1), score(after)


def make_scores(focus_of, pictures):
    rows = []
    for model, name in SCORED:
        focus = focus_of(model)
        for path in sorted(pictures.iterdir()):
            asked, scores, whole = scored(focus, DIALOGUES[name], Image.open(path).convert("RGB"))
            kept = top_k(scores, focus.cfg["gamma"])
            shares, k = scores.double().sort(descending=True).values / scores.double().sum(), len(kept)
            sums = shares.cumsum(0)[max(k - 2, 0):k]
            if len(scores) < 120 and k < len(scores) and shares[k - 1] - shares[k] > FLOORS["text_score"] \
                    and min(abs(float(s) - focus.cfg["gamma"]) for s in sums) > FLOORS["text_share"]:
                break
        assert not torch.equal(kept, top_k(whole, focus.cfg["gamma"]))
        short = lambda values: [float(f"{x:.6g}") for x in values.tolist()]
        rows.append({"model": model, "image": f"pictures/{path.name}", "dialogue": name, "asked_at": asked, "kept": kept.tolist(),
                     "importance": short(scores), "whole": short(whole)})
        print(f"{model:14} {path.name}: {len(scores)} visual tokens, {k} kept", flush=True)
    return rows


# ---------------------------------------------------------------- real vocabularies

def make_real(folder):
    found = {}
    for name in ("mistral", "vicuna", "llama3", "qwen"):
        processor = AutoProcessor.from_pretrained(folder / name)
        check_text(processor, DIALOGUES["odd"])
        ids = inputs(processor, DIALOGUES["odd"], [Image.new("RGB", (9, 5))])["input_ids"][0].tolist()
        image = processor.tokenizer.convert_tokens_to_ids("<image>")
        found[name] = [id for i, id in enumerate(ids) if id != image or ids[i - 1] != image]
        assert found[name].count(image) == 1
    return {"dialogue": "odd", "ids": found}


def main():
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=root / "tests/fixtures"), parser.add_argument("--vocabularies", type=Path)
    parser.add_argument("--llava", type=Path)
    args = parser.parse_args()
    logging.set_verbosity_error(), logging.disable_progress_bar()
    focus_of, path = functools.cache(lambda name: original.opened(args.out / name)), args.out / "dialogues.json"
    if args.llava:
        return check_llava(focus_of, args.llava)
    real = make_real(args.vocabularies) if args.vocabularies else json.loads(path.read_text())["real"]
    lines = lambda rows: "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]"
    whole = lambda value: json.dumps(value, ensure_ascii=False)
    scores, prompts, answers = (make(focus_of, args.out / "pictures") for make in (make_scores, make_prompts, make_answers))
    path.write_text(f'{{"dialogues": {whole(DIALOGUES)},\n"templates": {whole(REFUSING)},\n"pictures": {whole([f"pictures/{p}" for p in PICTURES])},\n'
                    f'"real": {whole(real)},\n"scores": {lines(scores)},\n"prompts": {lines(prompts)},\n"answers": {lines(answers)}}}\n', encoding="utf-8")
    refused = sum("refused" in row for row in prompts)
    print(f"{len(prompts)} prompts, {refused} of them refused, {len(answers)} dialogues with answers, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
