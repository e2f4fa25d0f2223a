"""Language models: loading, chat formatting, the structure of the residual stream."""
