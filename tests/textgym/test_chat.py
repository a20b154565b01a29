import numpy as np
import pytest

from textgym import TextGenEnv
from textgym.chat import ChatTemplate
from textgym.messages import Message, as_messages, plain_text
from textgym.prompt_format import ChatFormat, PlainFormat, prompt_format
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
LLAMA_2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
MARKED = (
    "{%- for message in messages %}\n    {%- if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{%- else %}{{ message.content | tojson }}{% if loop.last %}{% break %}{% endif %}{% endif %}"
    "{%- endfor %}"
)
CODER = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '### ' + m.content + '\n' }}"
    "{% else %}{{ m.content + '\n<|im_end|>\n' }}{% endif %}{% endfor %}>"
)
TEMPLATES = {"chatml": CHATML, "gemma": GEMMA, "llama 2": LLAMA_2, "marked": MARKED}
HELLO = [Message("user", "Hello.")]
DIALOGUE = [*HELLO, Message("assistant", "Hi!"), Message("user", 'Say "é" & <b>.')]


@pytest.fixture
def make_chat(byte_tokenizer):
    """Makes a tokenizer of bytes and a few special tokens, with a chat template."""
    import copy

    import tokenizers

    def make(template, specials=("<|im_start|>", "<|im_end|>")):
        backend = tokenizers.Tokenizer.from_str(byte_tokenizer.backend.to_str())
        backend.add_special_tokens(list(specials))
        return Tokenizer(
            copy.deepcopy(backend),
            name="chat bytes",
            eos_token="<|endoftext|>",
            bos_token=specials[0],
            chat_template=template,
        )

    return make


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [HELLO, DIALOGUE])
def test_templates_render_as_transformers_renders_them(name, messages):
    render = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    (expected,), _ = render(
        [[message._asdict() for message in messages]],
        chat_template=TEMPLATES[name],
        add_generation_prompt=True,
        **special,
    )
    assert ChatTemplate(TEMPLATES[name], special, "test").render(messages) == expected


def test_a_template_that_refuses_says_why():
    template = ChatTemplate(GEMMA, {"bos_token": "<s>"}, "gemma")
    with pytest.raises(ValueError, match=r"of 'gemma' refuses .* system, user .System role not"):
        template.render([Message("system", "Be kind."), *HELLO])
    with pytest.raises(ValueError, match="is not valid Jinja"):
        ChatTemplate("{% for %}", {}, "broken").render(HELLO)
    forgetful = ChatTemplate("{{ messages[-1].content }}", {}, "forgetful")
    with pytest.raises(ValueError, match="leaves out what the model said"):
        forgetful.reply("Higher.")


def test_templates_cannot_reach_into_objects():
    reaching = ChatTemplate("{{ messages.__class__.__mro__ }}", {}, "bad")
    with pytest.raises(ValueError, match=r"refuses .*unsafe"):
        reaching.render(HELLO)


class TestMessages:
    def test_the_plain_text_of_one_message_is_its_content(self):
        assert plain_text(HELLO) == "Hello."
        assert plain_text([Message("system", "Be kind."), *DIALOGUE[:1]]) == (
            "Be kind.\nUser: Hello.\nAssistant:"
        )

    def test_an_example_of_a_chat(self):
        said = [{"role": "user", "content": "Hi"}]
        assert Example.chat(said, "Hello!") == Example("Hi", "Hello!")
        longer = Example.chat([*said, {"role": "assistant", "content": "Ho"}, *said])
        assert longer.prompt == "User: Hi\nAssistant: Ho\nUser: Hi\nAssistant:"
        assert longer.messages[1] == Message("assistant", "Ho")
        assert hash(longer) == hash(Example.chat(longer.messages))

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            ("Hello", TypeError, "expected a list of messages"),
            ([{"role": "user"}], TypeError, "expected a message"),
            ([{"role": "bot", "content": "x"}], ValueError, "one of system, user, assistant"),
            ([{"role": "user", "content": 3}], TypeError, "content of a message is a string"),
            ([], ValueError, "at least one message"),
            ([Message("assistant", "x")], ValueError, "last one is not the assistant's"),
        ],
    )
    def test_what_is_no_conversation(self, value, error, message):
        with pytest.raises(error, match=message):
            as_messages(value)


class TestFormat:
    def test_a_tokenizer_with_a_template_belongs_to_a_chat_model(self, make_chat, byte_tokenizer):
        assert isinstance(prompt_format(make_chat(CHATML), None), ChatFormat)
        assert isinstance(prompt_format(make_chat(CHATML), False), PlainFormat)
        assert isinstance(prompt_format(byte_tokenizer, None), PlainFormat)
        with pytest.raises(ValueError, match="has no chat template"):
            prompt_format(byte_tokenizer, True)
        with pytest.raises(TypeError, match="chat is True, False or None, got 'yes'"):
            prompt_format(byte_tokenizer, "yes")

    def test_the_end_of_the_turn_is_the_end_of_text(self, make_chat):
        plain = make_chat(CHATML)
        form = prompt_format(plain, None)
        end_of_turn = plain.backend.token_to_id("<|im_end|>")
        assert form.tokenizer.eos_token_id == end_of_turn != plain.eos_token_id
        assert form.end_ids == {end_of_turn, plain.eos_token_id}
        assert plain.eos_token_id == 0  # the tokenizer itself stays as it was

    def test_a_template_that_ends_turns_with_the_end_of_text(self, make_chat):
        form = prompt_format(make_chat(LLAMA_2), None)
        assert form.tokenizer.eos_token_id == 0
        assert form.end_ids == {0}

    def test_special_tokens_of_the_template_are_special(self, make_chat):
        form = prompt_format(make_chat(CHATML), None)
        ids = form.encode(Example("hé"))
        start = form.tokenizer.backend.token_to_id("<|im_start|>")
        end = form.tokenizer.eos_token_id
        assert [i for i in ids if i in form.tokenizer.special_ids] == [start, end, start]
        assert form.tokenizer.decode(ids) == "user\nhé\nassistant\n"

    def test_a_reply_goes_on_behind_the_turn(self, make_chat):
        form = prompt_format(make_chat(CHATML), None)
        end = form.tokenizer.eos_token_id
        assert isinstance(form, ChatFormat)
        after = form.encode_reply("Higher.", [65, end], "A")
        assert form.tokenizer.decode(after) == "\nuser\nHigher.\nassistant\n"
        assert form.encode_reply("Higher.", [65], "A") == [end, *after]
        first = form.encode(Example("Guess."))
        whole = form.encode(
            Example.chat(
                [
                    Message("user", "Guess."),
                    Message("assistant", "A"),
                    Message("user", "Higher."),
                ]
            )
        )
        assert [*first, *form.tokenizer.encode_plain("A"), end, *after] == whole

    @pytest.mark.parametrize("template", [LLAMA_2, CODER])
    def test_the_end_of_a_turn_is_not_written_twice(self, make_chat, template):
        form = prompt_format(make_chat(template), None)
        end = form.tokenizer.eos_token_id
        after = form.encode_reply("Why?", [65, end], "A")
        assert end not in after
        assert form.encode_reply("Why?", [65], "A").count(end) == 1

    def test_a_template_of_one_turn_serves_tasks_of_one_turn(self, make_chat):
        once = (
            "{{ messages[0].content }}{% if messages[1:] %}{{ raise_exception('one') }}{% endif %}>"
        )
        tokenizer = make_chat(once)
        form = prompt_format(tokenizer, None)
        assert form.tokenizer.eos_token_id == 0
        assert form.tokenizer.decode(form.encode(Example("Hi"))) == "Hi>"
        with pytest.raises(ValueError, match="refuses a conversation of user, assistant, user"):
            TextGenEnv(task="game", tokenizer=tokenizer)

    def test_a_plain_reply_begins_a_line(self, byte_tokenizer):
        form = prompt_format(byte_tokenizer, None)
        for turn, line_end in (("5", "\n"), ("5\n", "")):
            ids = form.encode_reply("Lower.", [1], turn)
            assert byte_tokenizer.decode(ids) == f"{line_end}User: Lower.\nAssistant:"

    def test_the_template_is_saved_with_the_tokenizer(self, make_chat, tmp_path):
        tokenizer = make_chat(CHATML)
        tokenizer.save_pretrained(tmp_path)
        again = Tokenizer.from_pretrained(tmp_path)
        assert again.chat_template is not None
        assert again.chat_template.render(HELLO) == tokenizer.chat_template.render(HELLO)

    @pytest.mark.parametrize("several", [False, True])
    def test_the_template_may_stand_in_the_configuration(self, make_chat, tmp_path, several):
        import json

        make_chat(None).save_pretrained(tmp_path)
        path = tmp_path / "tokenizer_config.json"
        template = [{"name": "default", "template": CHATML}] if several else CHATML
        config = {**json.loads(path.read_text()), "chat_template": template}
        path.write_text(json.dumps(config))
        assert Tokenizer.from_pretrained(tmp_path).chat_template.source == CHATML


class TestEnvironment:
    def test_an_episode_is_a_turn_of_the_chat(self, make_chat):
        tokenizer = make_chat(CHATML)
        task = Task("hello", {"train": [Example("Hello.", "Hi!")]}, stop=("!",))
        env = TextGenEnv(task=task, tokenizer=tokenizer, reward="exact_match", max_new_tokens=8)
        observation, _ = env.reset(seed=0)
        length = observation["attention_mask"].sum()
        prompt = tokenizer.backend.decode(
            observation["input_ids"][:length].tolist(), skip_special_tokens=False
        )
        assert prompt == "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
        for token in tokenizer.encode_plain("Hi!"):
            *_, terminated, _, info = env.step(token)
            assert not terminated  # stop strings of a task are for plain text
        *_, terminated, _, info = env.step(env.tokenizer.eos_token_id)
        assert terminated
        assert info["text"] == "Hi!"
        assert info["is_success"]

    def test_the_old_end_of_text_ends_it_too(self, make_chat):
        tokenizer = make_chat(CHATML)
        env = TextGenEnv(tokenizer=tokenizer)
        env.reset(seed=0)
        assert env.step(0)[2]

    def test_copies_and_pickles(self, make_chat):
        import copy
        import pickle

        env = TextGenEnv(tokenizer=make_chat(CHATML))
        for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
            np.testing.assert_array_equal(
                other.reset(seed=3)[0]["input_ids"], env.reset(seed=3)[0]["input_ids"]
            )

    def test_a_reply_does_not_go_on_where_the_prompt_ends(self, make_chat, byte_tokenizer):
        for tokenizer, continues in ((make_chat(CHATML), False), (byte_tokenizer, True)):
            env = TextGenEnv(tokenizer=tokenizer)
            env.reset(seed=0)
            assert env.process.completions.sample(0).continues is continues

    def test_a_reset_takes_messages(self, make_chat):
        env = TextGenEnv(tokenizer=make_chat(CHATML), context_length=200)
        observation, info = env.reset(options={"prompt": [m._asdict() for m in DIALOGUE]})
        text = env.tokenizer.decode(observation["input_ids"][: observation["attention_mask"].sum()])
        assert text.startswith("user\nHello.\nassistant\nHi!\nuser\n")
        assert info["prompt"].startswith("User: Hello.")
        with pytest.raises(ValueError, match="a string or a list of messages: expected a message"):
            env.reset(options={"prompt": [3]})
