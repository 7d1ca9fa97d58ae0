"""A checkpoint for commands that run thousands of times: tests/checkpoints/small with one layer of the ViT and two of the decoder, of which the first has types of its own, a vocabulary of the bytes and one
merge, and every size as small as keeps all that there is to do: no size is a multiple of a panel or a block of weights, a picture has four tokens,
and the tables of tokens take two of the units of a .cvq file in 16 bits and one in fewer, so that there is something to choose between types."""
import json
import os
import random
import struct

SMALL = 'tests/checkpoints/small'
# Of the sizes in SMALL, no two of which are the same number. Those of qkv follow from the others.
VOCAB, HIDDEN, HEADS, MLP, VIT, VIT_HEADS, VIT_MLP, PATCH, IMAGE = 1200, 24, 2, 40, 20, 2, 36, 2, 8
POSITIONS = (IMAGE // PATCH) ** 2 + 1
SIZES = {128: HIDDEN, 384: 3 * HIDDEN, 16: HIDDEN // HEADS // 2, 352: MLP, 160: VIT, 480: 3 * VIT, 224: VIT_MLP, 14: PATCH, 37: POSITIONS}
BYTES, MERGED = 256, 256  # ids of bytes come first, then the piece of the merge, then special tokens


def read_json(name):
    with open(os.path.join(SMALL, name), encoding='utf-8') as f:
        return json.load(f)


def write_json(folder, name, value):
    with open(os.path.join(folder, name), 'w', encoding='utf-8') as f:
        json.dump(value, f)


def bf16(rng, count):
    """Values of the usual size, near 0.1."""
    return b''.join(struct.pack('<f', rng.gauss(0, 0.1))[2:] for _ in range(count))


def values(name, count, rng):
    """All layers have one table of rotary frequencies."""
    return bf16(random.Random(0) if name.endswith('inv_freq') else rng, count)


def write_tensors(folder, layers, vocab):
    """Two files, as of a checkpoint that is cut."""
    shapes = {}
    for name in sorted({v for v in read_json('model.safetensors.index.json')['weight_map'].values()}):
        with open(os.path.join(SMALL, name), 'rb') as f:
            header = json.loads(f.read(struct.unpack('<Q', f.read(8))[0]))
        shapes.update({n: t['shape'] for n, t in header.items() if n != '__metadata__'})
    names = sorted(n for n in shapes if '.layers.' not in n or '.layers.0.' in n or (layers == 2 and 'model.layers.1.' in n))
    rng, places = random.Random(1), {}
    for part, names in enumerate((names[0::2], names[1::2])):
        header, data = {'__metadata__': {'format': 'pt'}}, b''
        for name in names:
            shape = [{**SIZES, 1024: vocab}.get(n, n) for n in shapes[name]]
            count = 1
            for n in shape:
                count *= n
            header[name] = {'dtype': 'BF16', 'shape': shape, 'data_offsets': [len(data), len(data) + 2 * count]}
            data += values(name, count, rng)
            places[name] = f'model-0000{part + 1}-of-00002.safetensors'
        text = json.dumps(header).encode()
        text += b' ' * (-len(text) % 8)
        with open(os.path.join(folder, places[names[0]]), 'wb') as f:
            f.write(struct.pack('<Q', len(text)) + text + data)
    write_json(folder, 'model.safetensors.index.json', {'metadata': {}, 'weight_map': places})


def write_tokenizer(folder):
    """-> new ids of the special tokens, by their old ones"""
    tokenizer = read_json('tokenizer.json')
    model = tokenizer['model']
    left, right = model['merges'][0] if isinstance(model['merges'][0], list) else model['merges'][0].split(' ')
    model['vocab'] = {piece: i for i, piece in enumerate(p for p in model['vocab'] if len(p) == 1)}
    assert len(model['vocab']) == BYTES
    model['vocab'][left + right] = MERGED
    model['merges'] = model['merges'][:1]
    ids = {}
    for i, token in enumerate(tokenizer['added_tokens']):
        ids[token['id']] = token['id'] = MERGED + 1 + i
    write_json(folder, 'tokenizer.json', tokenizer)
    return ids


def write(folder, layers=2, vocab=VOCAB):
    """layers: of the decoder, at most 2; vocab: at least 270"""
    os.mkdir(folder)
    ids = write_tokenizer(folder)
    write_tensors(folder, layers, vocab)
    config = read_json('config.json')
    config.update(hidden_size=HIDDEN, intermediate_size=MLP, num_attention_heads=HEADS, num_multi_query_heads=HEADS, num_hidden_layers=layers,
                  vocab_size=vocab, max_position_embeddings=256, bos_token_id=ids[config['bos_token_id']],
                  pad_token_id=ids[config['pad_token_id']], eos_token_id=[ids[i] for i in config['eos_token_id']])
    config['vision_config'].update(hidden_size=VIT, num_heads=VIT_HEADS, num_hidden_layers=1, intermediate_size=VIT_MLP, image_size=IMAGE,
                                   patch_size=PATCH, num_positions=POSITIONS)
    write_json(folder, 'config.json', config)
    generation = read_json('generation_config.json')
    generation.update({k: config[k] for k in generation if k in config})
    write_json(folder, 'generation_config.json', generation)
