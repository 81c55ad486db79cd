"""Re-ranks the best items of a user by maximal marginal relevance.

Letters: Q users, M candidates of a user, N items, W width of a vector.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

# Candidate rows (Q, M), best first, 0 = none, and their scores -> indices (Q, M) in the new order.
Reranker = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def checked_order(order: object, rows: torch.Tensor) -> torch.Tensor:
    """Check what a re-ranker returned.

    Args:
        order: indices (Q, at most M), each at most once for a user.
        rows: the candidates (Q, M).

    Returns:
        The indices.

    Raises:
        TypeError: if it is not a tensor of integers.
        ValueError: if the shape is wrong, or an index is outside 0..M-1 or repeated.
    """
    users, candidates = rows.shape
    asked = f"return indices into the candidates, ({users}, at most {candidates}), best first"
    if not isinstance(order, torch.Tensor) or order.dtype not in (torch.int64, torch.int32):
        kind = order.dtype if isinstance(order, torch.Tensor) else type(order).__name__
        raise TypeError(f"rerank= returned {kind}, not a tensor of integers: {asked}")
    if order.ndim != 2 or len(order) != users or order.shape[1] > candidates:
        raise ValueError(f"rerank= returned the shape {tuple(order.shape)}: {asked}")
    order = order.to(rows.device, torch.int64)
    if order.numel():
        ascending = order.sort(1).values
        if int(ascending[:, 0].min()) < 0 or int(ascending[:, -1].max()) >= candidates:
            raise ValueError(
                f"rerank= returned an index outside 0..{candidates - 1}, such as a row of an "
                f"item: {asked}"
            )
        if bool((ascending[:, 1:] == ascending[:, :-1]).any()):
            raise ValueError(f"rerank= returned an index twice for one user: {asked}")
    return order


class MaximalMarginalRelevance:
    """Trades off the score of an item against its similarity to the items ranked above it.

    Items are selected one by one. Each step selects the candidate with the highest
    `(1 - diversity) * score - diversity * similarity`, where the score is scaled to 0..1 over the
    candidates of the user, and the similarity is the highest cosine similarity to an item already
    selected.

    Args:
        vectors: (N + 1, W) content vector of each item; row 0 is ignored.
        diversity: weight of the similarity; 0 keeps the order of the scores.

    Raises:
        ValueError: if `diversity` is outside 0..1, or vectors are not finite.

    Source: Carbonell and Goldstein 1998, https://doi.org/10.1145/290941.291025.

    Examples:
        >>> vectors = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> rerank = MaximalMarginalRelevance(vectors, diversity=0.5)
        >>> rerank(torch.tensor([[1, 2, 3]]), torch.tensor([[3.0, 2.9, 2.8]]))
        tensor([[0, 2, 1]])
    """

    def __init__(self, vectors: torch.Tensor, *, diversity: float = 0.3) -> None:
        if not 0 <= diversity <= 1:
            raise ValueError(f"diversity={diversity} must lie in 0..1")
        if not bool(torch.isfinite(vectors).all()):
            raise ValueError("a content vector is NaN or infinite: similarity needs finite vectors")
        self.vectors, self.diversity = F.normalize(vectors.float(), dim=1), diversity

    def __call__(self, rows: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Re-rank the candidates of each user.

        Args:
            rows: (Q, M) candidate rows, best first; 0 = no candidate.
            scores: (Q, M) scores; -inf if there is no candidate.

        Returns:
            (Q, M) indices of candidates in 0..M - 1, in the new order. Ties are broken by score.
        """
        present = rows > 0
        lowest = scores.masked_fill(~present, torch.inf).amin(1, keepdim=True)
        spread = (scores.amax(1, keepdim=True) - lowest).clamp(min=torch.finfo(scores.dtype).tiny)
        relevance = ((scores - lowest) / spread).masked_fill(~present, -torch.inf)  # (Q, M)
        content = self.vectors[rows.to(self.vectors.device)].to(scores.device)  # (Q, M, W)
        likeness = torch.zeros_like(relevance)
        chosen = torch.zeros_like(present)
        order = []
        for step in range(rows.shape[1]):
            value = (1 - self.diversity) * relevance
            if step and self.diversity:
                value = value - self.diversity * likeness
            value = value.masked_fill(~present, -torch.finfo(value.dtype).max)
            value = value.masked_fill(chosen, -torch.inf)  # below empty candidates
            best = value.argmax(1, keepdim=True)  # (Q, 1), the first one in case of ties
            order.append(best)
            chosen = chosen.scatter(1, best, True)
            picked = content.gather(
                1, best[..., None].expand(-1, -1, content.shape[2])
            )  # (Q, 1, W)
            cosine = (content @ picked.transpose(1, 2))[..., 0]  # (Q, M)
            likeness = cosine if not step else torch.maximum(likeness, cosine)
        return torch.cat(order, dim=1)
