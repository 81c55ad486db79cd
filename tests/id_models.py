"""Sequence models that take only item ids, in the style of public recommendation code.

They use their own embedding tables and do not import the package. Letters: B users, L positions, D
hidden size.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def last_item_states(hidden, item_seq_len):
    """(B, L, D) -> (B, D)"""
    index = (item_seq_len - 1).view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
    return hidden.gather(1, index).squeeze(1)


class GRURecommender(nn.Module):
    """A recurrent model: GRU, projection, state at the last item."""

    def __init__(self, n_items, embedding_size=16, hidden_size=24, dropout=0.2):
        super().__init__()
        self.item_embedding = nn.Embedding(n_items, embedding_size, padding_idx=0)
        self.emb_dropout = nn.Dropout(dropout)
        self.gru_layers = nn.GRU(embedding_size, hidden_size, bias=False, batch_first=True)
        self.dense = nn.Linear(hidden_size, embedding_size)

    def forward(self, item_seq, item_seq_len):
        item_seq_emb = self.emb_dropout(self.item_embedding(item_seq))
        gru_output, _ = self.gru_layers(item_seq_emb)
        return last_item_states(self.dense(gru_output), item_seq_len)


class AttentionRecommender(nn.Module):
    """A causal transformer with a position table; returns the state at the last item."""

    def __init__(self, n_items, hidden_size=16, max_seq_length=12, dropout=0.2):
        super().__init__()
        self.max_seq_length = max_seq_length
        self.item_embedding = nn.Embedding(n_items, hidden_size, padding_idx=0)
        self.position_embedding = nn.Embedding(max_seq_length, hidden_size)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def get_attention_mask(self, item_seq):
        seen = (item_seq != 0).unsqueeze(1) & torch.ones(
            item_seq.size(1), item_seq.size(1), dtype=torch.bool, device=item_seq.device
        ).tril()
        return torch.where(seen, 0.0, -10000.0).to(self.query.weight.dtype)  # (B, L, L)

    def forward(self, item_seq, item_seq_len):
        position_ids = torch.arange(item_seq.size(1), dtype=torch.long, device=item_seq.device)
        position_ids = position_ids.unsqueeze(0).expand_as(item_seq)
        hidden = self.item_embedding(item_seq) + self.position_embedding(position_ids)
        hidden = self.dropout(self.LayerNorm(hidden))
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2)
        scores = scores / math.sqrt(hidden.shape[-1]) + self.get_attention_mask(item_seq)
        hidden = hidden + self.dropout(scores.softmax(-1)) @ self.value(hidden)
        return last_item_states(hidden, item_seq_len)


class SessionGraphRecommender(nn.Module):
    """A session graph: nodes are distinct items, edges are built with NumPy."""

    def __init__(self, n_items, embedding_size=16, step=1):
        super().__init__()
        self.step = step
        self.item_embedding = nn.Embedding(n_items, embedding_size, padding_idx=0)
        self.linear_edge_in = nn.Linear(embedding_size, embedding_size)
        self.linear_edge_out = nn.Linear(embedding_size, embedding_size)
        self.cell = nn.GRUCell(2 * embedding_size, embedding_size)
        self.linear_one = nn.Linear(embedding_size, embedding_size)
        self.linear_two = nn.Linear(embedding_size, embedding_size)
        self.linear_three = nn.Linear(embedding_size, 1, bias=False)
        self.linear_transform = nn.Linear(2 * embedding_size, embedding_size)

    def build_graph(self, item_seq):
        device, n = item_seq.device, item_seq.size(1)
        nodes, aliases, incoming, outgoing = [], [], [], []
        for session in item_seq.cpu().numpy():
            node = np.unique(session)
            nodes.append(node.tolist() + (n - len(node)) * [0])
            alias = [int(np.where(node == item)[0][0]) for item in session]
            adjacency = np.zeros((n, n))
            for here, there, item in zip(alias, alias[1:], session[1:], strict=False):
                if item == 0:
                    break
                adjacency[here][there] = 1
            sums_in, sums_out = adjacency.sum(0), adjacency.sum(1)
            sums_in[sums_in == 0] = 1
            sums_out[sums_out == 0] = 1
            incoming.append((adjacency / sums_in).T)
            outgoing.append(adjacency / sums_out[:, None])
            aliases.append(alias)
        dtype = self.linear_three.weight.dtype
        return (
            torch.tensor(aliases, dtype=torch.long, device=device),
            torch.tensor(nodes, dtype=torch.long, device=device),
            torch.tensor(np.array(incoming), dtype=dtype, device=device),
            torch.tensor(np.array(outgoing), dtype=dtype, device=device),
        )

    def forward(self, item_seq, item_seq_len):
        alias_inputs, items, a_in, a_out = self.build_graph(item_seq)
        hidden = self.item_embedding(items)  # (B, nodes, D)
        for _ in range(self.step):
            messages = torch.cat(
                [a_in @ self.linear_edge_in(hidden), a_out @ self.linear_edge_out(hidden)], dim=2
            )
            hidden = self.cell(messages.flatten(0, 1), hidden.flatten(0, 1)).view_as(hidden)
        index = alias_inputs.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        seq_hidden = hidden.gather(1, index)
        ht = last_item_states(seq_hidden, item_seq_len)
        q1 = self.linear_one(ht).unsqueeze(1)
        q2 = self.linear_two(seq_hidden)
        alpha = self.linear_three(torch.sigmoid(q1 + q2))
        a = (alpha * seq_hidden * (item_seq > 0).unsqueeze(-1)).sum(1)
        return self.linear_transform(torch.cat([a, ht], dim=1))


class MemoryRecommender(nn.Module):
    """Short-term attention and memory: the last item and the mean of the session; looks ids up
    twice."""

    def __init__(self, n_items, embedding_size=16):
        super().__init__()
        self.item_embedding = nn.Embedding(n_items, embedding_size, padding_idx=0)
        self.w1 = nn.Linear(embedding_size, embedding_size, bias=False)
        self.w2 = nn.Linear(embedding_size, embedding_size, bias=False)
        self.w3 = nn.Linear(embedding_size, embedding_size, bias=False)
        self.w0 = nn.Linear(embedding_size, 1, bias=False)
        self.b_a = nn.Parameter(torch.zeros(embedding_size))
        self.mlp_a = nn.Linear(embedding_size, embedding_size)
        self.mlp_b = nn.Linear(embedding_size, embedding_size)

    def forward(self, item_seq, item_seq_len):
        item_seq_emb = self.item_embedding(item_seq)
        last_inputs = self.item_embedding(item_seq.gather(1, item_seq_len.view(-1, 1) - 1))
        org_memory = item_seq_emb
        ms = org_memory.sum(dim=1, keepdim=True) / item_seq_len.view(-1, 1, 1)
        alpha = self.w0(
            torch.sigmoid(self.w1(org_memory) + self.w2(last_inputs) + self.w3(ms) + self.b_a)
        )
        ma = (alpha * org_memory).sum(1) + ms.squeeze(1)
        hs = torch.tanh(self.mlp_a(ma))
        ht = torch.tanh(self.mlp_b(last_inputs.squeeze(1)))
        return hs * ht


class ConvolutionRecommender(nn.Module):
    """A convolution over the whole window: needs `max_seq_length` positions, takes no lengths."""

    def __init__(self, n_items, embedding_size=16, max_seq_length=12, n_h=8, n_v=4, dropout=0.2):
        super().__init__()
        self.max_seq_length = max_seq_length
        self.item_embedding = nn.Embedding(n_items, embedding_size, padding_idx=0)
        self.conv_v = nn.Conv2d(1, n_v, (max_seq_length, 1))
        heights = [i for i in (1, 2, 4) if i <= max_seq_length]
        self.conv_h = nn.ModuleList(nn.Conv2d(1, n_h, (i, embedding_size)) for i in heights)
        self.fc1 = nn.Linear(n_v * embedding_size + n_h * len(heights), embedding_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, item_seq):
        item_seq_emb = self.item_embedding(item_seq).unsqueeze(1)  # (B, 1, L, D)
        out_v = self.conv_v(item_seq_emb).flatten(1)
        out_hs = [F.relu(conv(item_seq_emb).squeeze(3)).amax(2) for conv in self.conv_h]
        out = torch.cat([out_v, *out_hs], dim=1)
        return self.fc1(self.dropout(out))


class DilatedRecommender(nn.Module):
    """Dilated causal convolutions: returns all states, takes no lengths."""

    def __init__(self, item_num, channels=16, dilations=(1, 2)):
        super().__init__()
        self.item_emb = nn.Embedding(item_num + 1, channels)
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, 3, dilation=d) for d in dilations)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in dilations)

    def forward(self, seqs):
        x = self.item_emb(seqs)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            past = F.pad(x.transpose(1, 2), (2 * conv.dilation[0], 0))
            x = x + F.relu(norm(conv(past).transpose(1, 2)))
        return x


class MixedRecommender(nn.Module):
    """A mix of recurrence, attention and a linear part; pads with the number of items, uses the
    weight of its table also directly, and ties it to an output layer."""

    def __init__(self, item_num, hidden_size=16):
        super().__init__()
        self.item_num = item_num
        self.embeddings = nn.ModuleDict(
            {"item": nn.Embedding(item_num + 1, hidden_size, padding_idx=item_num)}
        )
        self.gru = nn.GRU(hidden_size, hidden_size, num_layers=2, batch_first=True)
        self.attend = nn.Linear(2 * hidden_size, 1)
        self.output = nn.Linear(hidden_size, item_num + 1, bias=False)
        self.output.weight = self.embeddings["item"].weight

    def encode(self, seq, len_seq):
        emb = self.embeddings["item"](seq)
        state, _ = self.gru(emb)
        last = F.embedding(seq[torch.arange(len(seq)), len_seq - 1], self.embeddings["item"].weight)
        query = last.unsqueeze(1).expand_as(state)
        weights = self.attend(torch.cat([state, query], -1)).masked_fill(
            (seq == self.item_num).unsqueeze(-1), -torch.inf
        )
        return {"last_hidden_state": (weights.softmax(1) * state).sum(1) + last}

    def forward(self, seq, len_seq):
        return self.output(self.encode(seq, len_seq)["last_hidden_state"])


class NumpyAttentionRecommender(nn.Module):
    """Attention that returns all states, from sequences in NumPy arrays; its forward computes
    training scores with negative samples."""

    def __init__(self, user_num, item_num, hidden_units=16, maxlen=12):
        super().__init__()
        self.dev = "cpu"
        self.item_emb = nn.Embedding(item_num + 1, hidden_units, padding_idx=0)
        self.pos_emb = nn.Embedding(maxlen + 1, hidden_units, padding_idx=0)
        self.attention_layer = nn.MultiheadAttention(hidden_units, 2)
        self.last_layernorm = nn.LayerNorm(hidden_units)

    def log2feats(self, log_seqs):
        seqs = self.item_emb(torch.from_numpy(log_seqs).to(self.dev))
        poss = np.tile(np.arange(1, log_seqs.shape[1] + 1), [log_seqs.shape[0], 1])
        poss = poss * (log_seqs != 0)
        seqs = (seqs + self.pos_emb(torch.from_numpy(poss).to(self.dev))).transpose(0, 1)
        length = seqs.shape[0]
        mask = ~torch.tril(torch.ones((length, length), dtype=torch.bool, device=self.dev))
        attended, _ = self.attention_layer(seqs, seqs, seqs, attn_mask=mask)
        return self.last_layernorm((seqs + attended).transpose(0, 1))

    def forward(self, user_ids, log_seqs, pos_seqs, neg_seqs):
        log_feats = self.log2feats(log_seqs)
        pos_embs = self.item_emb(torch.from_numpy(pos_seqs).to(self.dev))
        neg_embs = self.item_emb(torch.from_numpy(neg_seqs).to(self.dev))
        return (log_feats * pos_embs).sum(-1), (log_feats * neg_embs).sum(-1)


class FilterRecommender(nn.Module):
    """A learned filter in the frequency domain: a fixed length, and states that see the future."""

    def __init__(self, n_items, hidden_size=16, max_len=12):
        super().__init__()
        self.item_embeddings = nn.Embedding(n_items, hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(max_len, hidden_size)
        self.complex_weight = nn.Parameter(torch.randn(max_len // 2 + 1, hidden_size, 2) * 0.1)

    def forward(self, input_ids):
        length = input_ids.size(1)
        positions = torch.arange(length, device=input_ids.device).expand_as(input_ids)
        x = self.item_embeddings(input_ids) + self.position_embeddings(positions)
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho")
        spectrum = spectrum * torch.view_as_complex(self.complex_weight)
        return x + torch.fft.irfft(spectrum, n=length, dim=1, norm="ortho")
